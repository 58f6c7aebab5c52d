"""Characters that no terminal and no UTF-8 file takes, in texts from outside."""

from __future__ import annotations

import json
import re
from typing import Any

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_UNSAFE_IN_JSON = re.compile("[\x7f-\x9f\ud800-\udfff]")
_HALF = re.compile("[\ud800-\udfff]")


def printable(text: str) -> str:
    r"""A text for a terminal: control characters but tab and line feed, and halves of surrogate
    pairs, become escapes such as `\x1b`."""
    return _CONTROL.sub(lambda match: repr(match[0])[1:-1], text)


def half_character(text: str) -> str | None:
    """The first half of a surrogate pair that stands alone in a text; None where there is none.

    Python makes such halves of bytes that are not UTF-8, in arguments and in names of files; no
    tokenizer takes them.
    """
    match = _HALF.search(text)
    return match[0] if match else None


def to_json(value: Any, indent: int | None = None) -> str:
    """JSON with letters of all scripts as they are, control characters as escapes.

    Args:
        value: plain data; what JSON has no form for (a date of a Parquet file) becomes text.
        indent: as `json.dumps` takes it.
    """
    text = json.dumps(value, indent=indent, ensure_ascii=False, default=str)
    return _UNSAFE_IN_JSON.sub(_escape, text)


def ascii_json(text: str) -> str:
    """The same JSON in ASCII alone, for an output in another encoding than UTF-8."""
    return re.sub("[^\x00-\x7f]", _escape, text)


def _escape(match: re.Match[str]) -> str:
    return json.dumps(match[0])[1:-1]
