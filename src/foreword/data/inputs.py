"""Inputs to answer, without their answers: a file of any format, or lines as they arrive."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foreword.data.lines import UTF8, decoded, json_row, text_lines
from foreword.data.readers import reader
from foreword.data.rows import Request, Row
from foreword.data.sources import HUB, data_file, is_bundled
from foreword.data.tables import Line, jsonl_rows, table_rows
from foreword.errors import DataError, argument
from foreword.names import FORMATS, TEXT

LINEWISE = (TEXT, "jsonl", "csv", "tsv")
"""Formats whose rows can be read one after the other while they arrive."""
_BY_ENDING = {
    ".jsonl": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".conll": "conll",
    ".iob": "conll",
    ".iob2": "conll",
    ".bio": "conll",
}


@dataclass(frozen=True)
class Given:
    """One input.

    Attributes:
        where: file and line, for messages.
        value: a text for the template's only slot, or named values.
    """

    where: str
    value: str | dict[str, Any]

    def beside(self, more: Mapping[str, Any]) -> dict[str, Any]:
        """The row of an output: what was given, and what is told of it."""
        return {**(self.value if isinstance(self.value, dict) else {"input": self.value}), **more}


def read_inputs(
    path: str | Path,
    format: str | None = None,
    *,
    encoding: str = UTF8,
    trained_on: str | None = None,
    words: int = 1,
) -> Iterator[Given]:
    """The inputs of a file.

    Args:
        path: a file, a folder of WebNLG's, bundled data, or a name of the hub.
        format: `text`, or in `foreword.names.FORMATS`. If it is not given, the name's ending tells
            it: JSONL, CSV, TSV, Parquet, CoNLL; `.txt`, and a name without an ending, is JSONL if
            it begins with `{`, else a text a line.
        encoding: of text files.
        trained_on: format of the artifact's own data, which files of other endings have too.
        words: conll's column of words, from 1.

    Raises:
        DataError: it cannot be read, is malformed, or holds nothing.
    """
    name = str(path)
    kind = format or _format_of(name, trained_on)
    lines: Iterable[Line] = ()
    if kind in (None, TEXT):
        lines = text_lines(data_file(path), encoding)
        yield from _linewise(name, lines, kind)
        return
    assert kind is not None
    own = UTF8 if is_bundled(path) else encoding
    request = Request(name, answers=False, words=words, encoding=own)
    empty = True
    for row in reader(kind)(request):
        empty = False
        yield Given(row.where, _value(row))
    if empty:
        left = f" but {len(request.empty)} empty rows" if request.empty else ""
        raise DataError(f"{name}: holds no input{left}")


def arriving_inputs(
    name: str, lines: Iterable[bytes], format: str | None = None, *, encoding: str = UTF8
) -> Iterator[Given]:
    """The inputs of lines that arrive one after the other, each as soon as its line is there.

    Args:
        name: where they come from, for messages.
        lines: as `tasks.lines.decoded` takes them.
        format: in `LINEWISE`; JSONL if the first line begins with `{`, else a text a line, if not
            given.
        encoding: of the lines.

    Raises:
        DataError: a line is malformed, or there is none.
    """
    if format is not None and format not in LINEWISE:
        raise DataError(
            f"{name}: format '{format}' is not read line by line; give {', '.join(LINEWISE)}, or "
            "the name of a file"
        )
    return _linewise(name, decoded(name, lines, encoding), format)


def _linewise(name: str, lines: Iterable[Line], format: str | None) -> Iterator[Given]:
    lines = ((number, line) for number, line in lines)
    empty = True
    if format in ("csv", "tsv"):
        for where, columns in table_rows(name, lines, "," if format == "csv" else "\t"):
            empty = False
            yield Given(where, columns)
    elif format == "jsonl":
        for where, columns in jsonl_rows(name, lines):
            empty = False
            yield Given(where, columns)
    else:
        for number, line in lines:
            if not line.strip():
                continue
            if empty and format is None:
                format = "jsonl" if line.lstrip().startswith("{") else TEXT
            empty = False
            where = f"{name}, line {number}"
            yield Given(where, json_row(where, line) if format == "jsonl" else line.rstrip("\r\n"))
    if empty:
        raise DataError(f"{name}: holds no input")


def _format_of(name: str, trained_on: str | None) -> str | None:
    """The format that a name tells; None where lines have to tell it."""
    if is_bundled(name):
        return "jsonl"
    ending = Path(name).suffix.lower()
    own = trained_on is not None and not FORMATS[trained_on].table
    if own and (name.startswith(HUB) or (trained_on == "e2e" and ending == ".csv")):
        return trained_on
    if name.startswith(HUB):
        return "parquet"
    if ending in ("", ".txt", *_BY_ENDING) and not Path(name).is_dir():
        return _BY_ENDING.get(ending)
    if own:
        return trained_on
    if ending == ".xml" or Path(name).is_dir():
        raise DataError(
            f"{name}: its format cannot be told from its name; give it with "
            f"{argument('--format')} ({', '.join(FORMATS)})"
        )
    return None


def _value(row: Row) -> dict[str, Any]:
    if row.words is not None:
        return {"words": list(row.words)}
    return dict(row.fields) if row.fields is not None else row.columns
