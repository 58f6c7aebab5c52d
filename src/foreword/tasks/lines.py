"""Text files line by line, and JSON in them; a mistake is named by file, line and column."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from foreword import opening
from foreword.errors import DataError
from foreword.json_text import parse_json

LINE_BYTES = 2**28
"""Most bytes of one line: a whole data set may stand in one, but no file of gigabytes does."""


def text_lines(file: Path) -> Iterator[tuple[int, str]]:
    """A text file's lines with their numbers, from 1; a byte order mark is left out.

    Raises:
        DataError: it cannot be read, is no regular file, or a line is not UTF-8 text.
    """
    try:
        with opening.open_regular(file) as handle:
            lines = iter(lambda: handle.readline(LINE_BYTES + 1), b"")
            for number, raw in enumerate(lines, start=1):
                if len(raw) > LINE_BYTES:
                    raise DataError(f"{file}, line {number}: has more than {LINE_BYTES:,} bytes")
                try:
                    line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise DataError(
                        f"{file}, line {number}: not UTF-8 text (byte {error.start + 1} of the "
                        "line); save the file as UTF-8"
                    ) from error
                if "\0" in line:
                    raise DataError(f"{file}, line {number}: holds a NUL character")
                yield number, line
    except FileNotFoundError as error:
        raise DataError(f"{file}: no such file") from error
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from error


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


def json_file(file: Path) -> Any:
    """A whole file of JSON.

    Raises:
        DataError: it is not JSON, or holds half a character.
    """
    text = "".join(line for _, line in text_lines(file))
    try:
        return _parse(str(file), text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{file}, line {error.lineno}, column {error.colno}: not valid JSON ({error.msg})"
        ) from error


def _parse(where: str, text: str) -> Any:
    try:
        value = parse_json(text, object_pairs_hook=_no_twice)
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
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name '{twice}' stands twice in one object")
    return found


def show(value: Any) -> str:
    """A value as a message shows it."""
    return short(repr(value))


def short(text: str) -> str:
    """At most 60 characters."""
    return text if len(text) <= 60 else text[:57] + "..."
