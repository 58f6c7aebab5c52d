"""One prompt as `foreword export vllm` wrote it: what it says of itself. No torch.

Everything is checked when it is read, so that the rest of the package trusts what it holds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foreword_vllm import files
from foreword_vllm.templates import Input, InputError

STATED = "prompt.json"
MOST_BYTES = 16 * 2**20
"""Of a prompt's statement."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_HASH = re.compile(r"[0-9a-f]{64}")
MAJOR = "1"


class PromptError(ValueError):
    """A prompt cannot be served; the message names the file, the field, the value and the fix."""


@dataclass(frozen=True)
class Prompt:
    """A prompt's statement.

    Attributes:
        name: what clients give as `model`.
        folder: where it lies.
        length: P, its virtual tokens.
        sha256: of the file with its keys and values.
        backbone: the base model's name when it was trained, for messages.
        backbone_sha256: the hash of the base model's stored weights.
        input: its template.
        leading: tokens that stand before every text.
        drops_blank: whether a blank that begins a text is left out, since the tokenizer sets it.
        sample: fields of its template, and the tokens that they must become.
        chat_options: what the chat template is told beside the messages.
        decoding: settings by vLLM's names, which a request's own go before.
    """

    name: str
    folder: Path
    length: int
    sha256: str
    backbone: str
    backbone_sha256: str
    input: Input
    leading: tuple[int, ...]
    drops_blank: bool
    sample: tuple[Mapping[str, str], tuple[int, ...]]
    chat_options: Mapping[str, Any]
    decoding: Mapping[str, Any]


def is_name(name: object) -> bool:
    """Whether something can be a prompt's name, and so the name of its folder."""
    return isinstance(name, str) and NAME.fullmatch(name) is not None


def is_hash(text: object) -> bool:
    """Whether something is a sha256 in hexadecimal digits."""
    return isinstance(text, str) and _HASH.fullmatch(text) is not None


def read_prompt(folder: Path) -> Prompt:
    """Read a prompt's statement from its folder, whose name is the prompt's.

    Raises:
        FileNotFoundError: there is none.
        PromptError: it is damaged, or of a later format.
    """
    file = folder / STATED
    try:
        stated = json.loads(files.read_bytes(file, within=folder.parent, most=MOST_BYTES))
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or str(error)[:200]
        raise PromptError(f"{file}: cannot be read as JSON: {reason}") from error
    try:
        return _prompt(folder, stated)
    except (InputError, KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"has no field {error}" if isinstance(error, KeyError) else str(error)[:300]
        raise PromptError(
            f"{file}: is damaged: {what}; write it again with `foreword export vllm --overwrite`"
        ) from error


def _prompt(folder: Path, stated: Any) -> Prompt:
    version = _of(str, stated, "format")
    if version.split(".")[0] != MAJOR:
        raise ValueError(f"format '{version:.20}' is not known, this package reads {MAJOR}.x")
    tokens, sample, backbone = (
        _of(dict, stated, name) for name in ("tokens", "sample", "backbone")
    )
    length = _of(int, stated, "length")
    if not 1 <= length <= 2**20:
        raise ValueError(f"length is {length}, expected 1 or more")
    fields = _of(dict, sample, "fields")
    return Prompt(
        name=folder.name,
        folder=folder,
        length=length,
        sha256=_hash(stated, "sha256"),
        backbone=_of(str, backbone, "name"),
        backbone_sha256=_hash(backbone, "sha256"),
        input=Input.parse(stated["input"]),
        leading=_ids(tokens, "leading"),
        drops_blank=_of(bool, tokens, "drops_blank"),
        sample=({str(name): str(value) for name, value in fields.items()}, _ids(sample, "tokens")),
        chat_options=_of(dict, stated, "chat_options"),
        decoding=_decoding(_of(dict, stated, "decoding")),
    )


def _decoding(stated: Mapping[str, Any]) -> dict[str, Any]:
    stop = stated["stop"]
    if not isinstance(stop, list) or not all(isinstance(word, str) and word for word in stop):
        raise ValueError(f"decoding.stop is {stop!r:.60}, expected texts")
    numbers = {
        name: float(_of((int, float), stated, name))
        for name in ("temperature", "top_p", "repetition_penalty")
    }
    counts = {name: _of(int, stated, name) for name in ("max_tokens", "top_k")}
    return {**numbers, **counts, "stop": stop}


def _of(kind: Any, stated: Mapping[str, Any], name: str) -> Any:
    value = stated[name]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{name} is {value!r:.60}")
    return value


def _hash(stated: Mapping[str, Any], name: str) -> str:
    value: str = _of(str, stated, name)
    if not is_hash(value):
        raise ValueError(f"{name} is {value!r:.80}, expected 64 hexadecimal digits")
    return value


def _ids(stated: Mapping[str, Any], name: str) -> tuple[int, ...]:
    value: list[Any] = _of(list, stated, name)
    if not all(isinstance(one, int) and one >= 0 for one in value):
        raise ValueError(f"{name} is {value!r:.60}, expected token ids")
    return tuple(value)
