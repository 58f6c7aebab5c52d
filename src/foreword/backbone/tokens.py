"""Text to tokens and back, by one rule that an artifact records.

Source: the tokenizer's own beginning token (or none, or always one), then the text; what an encoder
reads is closed as the tokenizer does it. Target: the text, then the end token, which is trained.
Virtual tokens stand before all of it. Padding is known by the mask alone, so any id can fill it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile
from typing import Any, Literal

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from foreword.errors import BackboneError

BosRule = Literal["auto", "always", "never"]


@dataclass(frozen=True)
class Tokens:
    """A tokenizer and the rule by which special tokens are set.

    Attributes:
        tokenizer: transformers' own.
        bos: whether a beginning token stands before the source.
        encodes: whether an encoder reads the source, which then keeps its closing token.
        virtual: the first id that stands for a virtual token: the size of the model's vocabulary.
    """

    tokenizer: PreTrainedTokenizerBase
    bos: BosRule = "auto"
    encodes: bool = False
    virtual: int = 0

    def source(self, text: str) -> list[int]:
        """Tokens of an input text."""
        begin = self.tokenizer.bos_token_id
        ids: list[int]
        if self.bos == "auto":
            ids = self.tokenizer(text, add_special_tokens=True, verbose=False)["input_ids"]
            if not self.encodes and ids and ids[-1] == self.eos_id and self._closes():
                ids = ids[:-1]
        else:
            ids = self.plain(text)
            if self.bos == "always":
                if begin is None:
                    raise BackboneError(
                        "tokens.bos: 'always' was asked for, but the tokenizer has no beginning "
                        "token; use 'auto' or 'never'"
                    )
                ids = [begin, *ids]
        return ids

    def pair(self, first: str, second: str) -> tuple[list[int], list[int]]:
        """Tokens of two texts as the tokenizer joins them, and which of the two each belongs to."""
        found = self.tokenizer(first, second, return_token_type_ids=True, verbose=False)
        ids: list[int] = found["input_ids"]
        return ids, list(found.get("token_type_ids") or [0] * len(ids))

    def filled(self, *texts: Sequence[str | int]) -> tuple[list[int], list[int]]:
        """Tokens of one or two texts in which ids stand between the words, special tokens around
        them as `source` and `pair` set them; and which of the two texts each token belongs to.

        The words between two ids are read by themselves, so that no token spans an id.
        """
        inner = [self._between(parts) for parts in texts]
        frame, segments, own = _frame(self, len(texts))
        ids: list[int] = []
        kinds: list[int] = []
        for i, around in enumerate(frame):
            ids += around
            kinds += segments[i]
            if i < len(inner):
                ids += inner[i]
                kinds += [own[i]] * len(inner[i])
        return ids, kinds

    def continued(self, text: str) -> list[int]:
        """Tokens of a text that goes on after another one: no mark of a beginning before it.

        A word of its own it is all the same, not the rest of one (WordPiece's `##`).
        """
        for anchor in (".", "a") if text[:1].isalnum() else ("a", "."):
            before, both = self.plain(anchor), self.plain(anchor + text)
            if text and both[: len(before)] == before and len(both) > len(before):
                return both[len(before) :]
        return self.plain(text)

    def _between(self, parts: Sequence[str | int]) -> list[int]:
        ids: list[int] = []
        for i, part in enumerate(parts):
            if isinstance(part, int):
                ids.append(part)
            else:
                ids += self.plain(part) if i == 0 else self.continued(part)
        return ids

    @property
    def mask_id(self) -> int | None:
        """The mask token, if there is one."""
        found = self.tokenizer.mask_token_id
        return None if found is None else int(found)

    def names(self, ids: Sequence[int]) -> list[str]:
        """Tokens as a person reads them, virtual ones as `<soft1>`, `<soft2>` and so on."""
        size = self.virtual or max(ids, default=0) + 1
        known = iter(self.tokenizer.convert_ids_to_tokens([i for i in ids if i < size]))
        return [f"<soft{i - size + 1}>" if i >= size else str(next(known)) for i in ids]

    def sentinel(self, number: int) -> int | None:
        """The token that stands for a span that an encoder-decoder fills in (T5's), if there is
        one."""
        name = f"<extra_id_{number}>"
        found = self.tokenizer.convert_tokens_to_ids(name)
        known = found is not None and self.tokenizer.convert_ids_to_tokens(found) == name
        return int(found) if known else None

    def words(self, words: Sequence[str], room: int | None) -> tuple[list[int], list[int | None]]:
        """Tokens of words joined by blanks, cut at `room`, and the index of each word's first one.

        A word that was cut off, or that has no token, has None.
        """
        text = " ".join(words)
        found = self.tokenizer(
            text,
            truncation=room is not None,
            max_length=room,
            return_offsets_mapping=True,
            verbose=False,
        )
        firsts: list[int | None] = []
        begins, start = [], 0
        for word in words:
            begins.append((start, start + len(word)))
            start += len(word) + 1
        spans = found["offset_mapping"]
        for begin, end in begins:
            inside = (i for i, (a, b) in enumerate(spans) if a < b and b > begin and a < end)
            firsts.append(next(inside, None))
        return found["input_ids"], firsts

    def windows(
        self, question: str, context: str, room: int | None, stride: int
    ) -> list[tuple[list[int], list[int], dict[int, tuple[int, int]]]]:
        """A question with each window of its context: ids, segments, and the characters of the
        context that each of the window's tokens covers, by the token's index.

        Args:
            room: tokens of a window, the question and special tokens included; None: one window.
            stride: tokens that neighbouring windows share.
        """
        found = self.tokenizer(
            question,
            context,
            truncation="only_second" if room is not None else False,
            max_length=room,
            stride=stride if room is not None else 0,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            return_token_type_ids=True,
            verbose=False,
        )
        windows = []
        for i, ids in enumerate(found["input_ids"]):
            covered = {
                at: span
                for at, (which, span) in enumerate(
                    zip(found.sequence_ids(i), found["offset_mapping"][i], strict=True)
                )
                if which == 1 and span[0] < span[1]
            }
            segments = found["token_type_ids"][i] if "token_type_ids" in found else [0] * len(ids)
            windows.append((ids, segments, covered))
        return windows

    def target(self, text: str) -> list[int]:
        """Tokens of an answer, ended by the end token."""
        return [*self.plain(text), self.eos_id]

    def plain(self, text: str) -> list[int]:
        """Tokens of a text without any special token."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    @property
    def leading(self) -> tuple[int, ...]:
        """The special tokens that the tokenizer puts before every text."""
        special = set(self.tokenizer.all_special_ids)
        ids: list[int] = self.tokenizer("a", add_special_tokens=True)["input_ids"]
        return tuple(takewhile(lambda token: token in special, ids))

    def text(self, ids: list[int]) -> str:
        """Text of tokens, without special ones."""
        decoded: str = self.tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return decoded

    def chat(self, messages: list[dict[str, str]]) -> str:
        """Messages by the tokenizer's own chat template, up to where the assistant begins.

        Raises:
            BackboneError: the tokenizer has no chat template, or it refuses the messages.
        """
        return self._chat(messages, begin=True)

    def turn(self, messages: list[dict[str, str]], answer: str) -> list[int]:
        """Tokens of the assistant's turn after `chat(messages)`, its end token included.

        Raises:
            BackboneError: the template does not put the turn after the messages.
        """
        begun = self.chat(messages)
        whole = self._chat([*messages, {"role": "assistant", "content": answer}], begin=False)
        if not whole.startswith(begun):
            raise BackboneError(
                "task.input: the tokenizer's chat template renders messages otherwise when an "
                "answer follows, so the assistant's turn cannot be told apart; give task.input as "
                "one text"
            )
        ids = self.plain(whole[len(begun) :])
        ends = [i for i, token in enumerate(ids) if token == self.eos_id]
        return ids[: ends[-1] + 1] if ends else [*ids, self.eos_id]

    def _chat(self, messages: list[dict[str, str]], *, begin: bool) -> str:
        if not self.tokenizer.chat_template:
            raise BackboneError(
                "task.input: is a list of messages, but the backbone's tokenizer has no chat "
                "template; give task.input as one text"
            )
        try:
            rendered: str = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=begin
            )
        except (TemplateError, TypeError, ValueError) as error:
            raise BackboneError(
                f"task.input: the tokenizer's chat template refuses these messages: {error}"
            ) from error
        return rendered

    @property
    def eos_id(self) -> int:
        """The end token."""
        if self.tokenizer.eos_token_id is None:
            raise BackboneError(
                "the tokenizer has no end token (eos_token), which ends every answer"
            )
        return int(self.tokenizer.eos_token_id)

    @property
    def pad_id(self) -> int:
        """What fills padding columns: any id serves, since the mask tells them."""
        return int(self.tokenizer.pad_token_id or 0)

    @property
    def sha256(self) -> str:
        """Hash of all that decides how text becomes tokens: vocabulary, merges, normalizer,
        special tokens, chat template. Padding and truncation are left out: we do them."""
        digest = hashlib.sha256()
        fast = getattr(self.tokenizer, "backend_tokenizer", None)
        if fast is None:
            whole: dict[str, Any] = {"vocabulary": self.tokenizer.get_vocab()}
        else:
            whole = json.loads(fast.to_str())
            whole.pop("truncation", None)
            whole.pop("padding", None)
        digest.update(json.dumps(whole, sort_keys=True).encode())
        digest.update(repr(sorted(self.tokenizer.special_tokens_map.items())).encode())
        digest.update(repr(self.tokenizer.chat_template).encode())
        return digest.hexdigest()

    def _closes(self) -> bool:
        empty: list[int] = self.tokenizer("", add_special_tokens=True)["input_ids"]
        return (
            bool(empty)
            and empty[-1] == self.eos_id
            and len(empty) > (1 if self.tokenizer.bos_token_id == self.eos_id else 0)
        )


@lru_cache(maxsize=64)
def _frame(tokens: Tokens, texts: int) -> tuple[list[list[int]], list[list[int]], list[int]]:
    """The special tokens before, between and after texts, the segment of each, and of each text."""
    marks = [tokens.plain(text) for text in ("a", "b")[:texts]]
    if texts == 1:
        ids = tokens.source("a")
        kinds = [0] * len(ids)
    else:
        ids, kinds = tokens.pair("a", "b")
    frame: list[list[int]] = []
    segments: list[list[int]] = []
    own: list[int] = []
    start = 0
    for mark in marks:
        found = (i for i in range(start, len(ids)) if ids[i : i + len(mark)] == mark)
        at = next(found, None)
        if at is None:
            raise BackboneError(
                "task.input: this tokenizer does not set special tokens around a text, so {soft} "
                "and {mask} cannot stand in it; give a template of words and fields"
            )
        frame.append(ids[start:at])
        segments.append(kinds[start:at])
        own.append(kinds[at])
        start = at + len(mark)
    return [*frame, ids[start:]], [*segments, kinds[start:]], own
