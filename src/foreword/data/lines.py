"""Text files line by line, and JSON in them; a mistake is named by file, line and column."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from foreword.common import opening
from foreword.common.json_text import parse_json
from foreword.errors import DataError, did_you_mean

UTF8 = "utf-8"
_COMMON = ("utf-8", "utf-16", "gb18030", "gbk", "big5", "shift_jis", "euc_kr", "latin-1", "cp1252")
_NO_ENCODINGS_OF_FILES = frozenset(
    {"idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape"}
)
"""Text encodings of Python's that are for other things than files."""

LINE_BYTES = 2**28
"""Most bytes of one line: a whole data set may stand in one, but no file of gigabytes does."""


def text_lines(file: Path, encoding: str | None = None) -> Iterator[tuple[int, str]]:
    """A text file's lines with their numbers, from 1; a byte order mark is left out.

    Args:
        file: the file.
        encoding: as `check_encoding` takes it; None: UTF-8, and its user can choose no other.

    Raises:
        DataError: it cannot be read, is no regular file, or a line is no text in this encoding.
    """
    try:
        with opening.open_regular(file) as handle:
            lines = iter(lambda: handle.readline(LINE_BYTES + 1), b"")
            yield from decoded(str(file), lines, encoding)
    except FileNotFoundError as error:
        raise DataError(f"{file}: no such file") from error
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from error


def decoded(
    name: str, lines: Iterable[bytes], encoding: str | None = None
) -> Iterator[tuple[int, str]]:
    """Lines of bytes as text with their numbers, from 1; a byte order mark is left out.

    Each line is decoded as it comes, so that a line can be answered before the next one is there.

    Args:
        name: what is read, for messages.
        lines: what stands before and with each byte of the line feed; in UTF-16 that is no line.
        encoding: as `text_lines` takes it.

    Raises:
        DataError: a line is no text in this encoding.
    """
    decoder = codecs.getincrementaldecoder(check_encoding(encoding or UTF8))()
    number, text = 1, ""

    def whole(raw: bytes, final: bool = False) -> str:
        try:
            more = decoder.decode(raw, final)
        except UnicodeError as error:
            raise DataError(_no_text(name, number, error, encoding, raw)) from error
        if number == 1 and not text:
            more = more.removeprefix("\ufeff")
        if "\0" in more:
            raise DataError(f"{name}, line {number}: holds a NUL character{_perhaps_utf16(raw)}")
        return more

    for raw in lines:
        if len(raw) + len(text) > LINE_BYTES:
            raise DataError(f"{name}, line {number}: has more than {LINE_BYTES:,} bytes")
        *complete, text = (text + whole(raw)).split("\n")
        for line in complete:
            yield number, f"{line}\n"
            number += 1
    text += whole(b"", final=True)
    if text:
        yield number, text


def check_encoding(name: str) -> str:
    """An encoding of text by its name (`utf-8`, `gb18030`, `utf-16`), as Python knows it.

    Raises:
        DataError: there is none of this name.
    """
    try:
        codec = codecs.lookup(name).name
        "a".encode(codec).decode(codec)
    except (LookupError, UnicodeError, ValueError, TypeError):
        codec = ""
    if not codec or codec in _NO_ENCODINGS_OF_FILES:
        raise DataError(
            f"encoding: expected the name of a text encoding, such as utf-8, gb18030, utf-16 or "
            f"latin-1, found {show(name)}{did_you_mean(str(name), _COMMON) if codec == '' else ''}"
        )
    return codec


def _no_text(name: str, number: int, error: UnicodeError, encoding: str | None, raw: bytes) -> str:
    byte = ""
    if isinstance(error, UnicodeDecodeError) and error.object == raw:
        byte = f" (byte {error.start + 1} of the line)"
    named = "UTF-8" if encoding is None or check_encoding(encoding) == UTF8 else encoding
    mend = "give the encoding that it was saved in as `encoding`"
    if encoding is None:
        mend = f"save the file as UTF-8{_perhaps_utf16(raw) if number == 1 else ''}"
    elif named == "UTF-8":
        mend = (
            "save the file as UTF-8, or give its encoding as `encoding` (gb18030, big5, utf-16, "
            f"latin-1, …){_perhaps_utf16(raw) if number == 1 else ''}"
        )
    return f"{name}, line {number}: not {named} text{byte}; {mend}"


def _perhaps_utf16(raw: bytes) -> str:
    marked = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return "; it looks like utf-16" if marked or b"\0" in raw else ""


def json_row(where: str, line: str) -> dict[str, Any]:
    """One line of JSONL: named values.

    Raises:
        DataError: it is not a JSON object, or holds half a character.
    """
    try:
        row = _parse(where, line)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{where}, column {error.colno}: not valid JSON ({error.msg}); expected one object a "
            "line"
        ) from error
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected an object with named fields, found {show(row)}")
    return row


def json_file(file: Path, encoding: str = UTF8) -> Any:
    """A whole file of JSON.

    Raises:
        DataError: it is not JSON, or holds half a character.
    """
    text = "".join(line for _, line in text_lines(file, encoding))
    try:
        return _parse(str(file), text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{file}, line {error.lineno}, column {error.colno}: not valid JSON ({error.msg})"
        ) from error


def _parse(where: str, text: str) -> Any:
    try:
        value = parse_json(text, object_pairs_hook=_no_twice)
        text.encode()
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError:
        raise
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where}: holds half of a surrogate pair ({error.object[error.start]!r})"
        ) from error
    except ValueError as error:
        raise DataError(f"{where}: not valid JSON ({error})") from error
    return value


def _no_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name '{twice}' stands twice in one object")
    return mapping


def show(value: Any) -> str:
    """A value as a message shows it."""
    return short(repr(value))


def short(text: str) -> str:
    """At most 60 characters."""
    return text if len(text) <= 60 else text[:57] + "..."
