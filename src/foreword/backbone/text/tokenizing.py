"""transformers' tokenizers as they are shared: by several threads, and by thousands of prompts."""

from __future__ import annotations

import hashlib
import json
import threading
from typing import Any
from weakref import WeakKeyDictionary

from transformers import PreTrainedTokenizerBase

_PARTS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
_OPTIONS = ("dropout", "unk_token", "fuse_unk", "byte_fallback", "ignore_merges")
"""Of a fast tokenizer's model."""
_settling = threading.Lock()
_hashing = threading.Lock()
_hashes: WeakKeyDictionary[PreTrainedTokenizerBase, tuple[object, str]] = WeakKeyDictionary()


def whole(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """A tokenizer that neither cuts nor pads.

    transformers takes such settings off a fast tokenizer at its next call, which fails ("Already
    borrowed") while another thread is in that tokenizer: here the first thread takes them off, and
    the others wait for that.
    """
    fast = getattr(tokenizer, "backend_tokenizer", None)
    if fast is not None and (fast.truncation or fast.padding):
        with _settling:
            if fast.truncation:
                fast.no_truncation()
            if fast.padding:
                fast.no_padding()
    return tokenizer


def sha256(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash of all that decides how text becomes tokens: vocabulary, merges, normalizer, special
    tokens, chat template. Padding and truncation are left out: foreword does them itself.

    It is computed once for a tokenizer, and anew when tokens were added, or special tokens, the
    chat template, a part or an option were changed. A vocabulary that was replaced by another of
    the same size is not noticed.
    """
    with _hashing:
        state = _state(tokenizer)
        known = _hashes.get(tokenizer)
        if known is None or known[0] != state:
            known = _hashes[tokenizer] = state, _hashed(tokenizer)
        return known[1]


def _state(tokenizer: PreTrainedTokenizerBase) -> object:
    """What is quickly told of a tokenizer, and changes with it."""
    fast = getattr(tokenizer, "backend_tokenizer", None)
    special = repr(sorted(tokenizer.special_tokens_map.items()))
    size = len(tokenizer)
    if fast is None:
        return size, special, tokenizer.chat_template
    parts = [getattr(fast, name) for name in _PARTS]
    return (
        size,
        special,
        tokenizer.chat_template,
        repr(sorted(fast.get_added_tokens_decoder().items())),
        [None if part is None else part.__getstate__() for part in parts],
        type(fast.model),
        [getattr(fast.model, name, None) for name in _OPTIONS],
    )


def _hashed(tokenizer: PreTrainedTokenizerBase) -> str:
    digest = hashlib.sha256()
    fast = getattr(tokenizer, "backend_tokenizer", None)
    if fast is None:
        content: dict[str, Any] = {"vocabulary": tokenizer.get_vocab()}
    else:
        content = json.loads(fast.to_str())
        content.pop("truncation", None)
        content.pop("padding", None)
    digest.update(json.dumps(content, sort_keys=True).encode())
    digest.update(repr(sorted(tokenizer.special_tokens_map.items())).encode())
    digest.update(repr(tokenizer.chat_template).encode())
    return digest.hexdigest()
