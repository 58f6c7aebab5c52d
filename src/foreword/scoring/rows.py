"""Rows of TSV, CSV and JSONL as outputs and references.

TSV and CSV are read as the E2E challenge's tool reads them: an MR and a text, with or without a
header; one quotation mark at either end of a TSV's cell is dropped; signs that participants' files
had in a wrong encoding are mended, in outputs and references alike.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foreword.data.lines import UTF8, json_row, text_lines
from foreword.errors import DataError, did_you_mean

OUTPUT, REFERENCES = ("output",), ("references", "reference", "ref")
_KEY = "mr"
_MENDED = {"Ł": "£", "Â£": "£", "Ã©": "é", "ã©": "é"}
_EDGE = re.compile(r"^\s*['\"]?\s*|\s*['\"]?\s*$")


@dataclass(frozen=True)
class Row:
    """A line of a file, or several lines of one record.

    Attributes:
        where: file and line.
        key: the MR, where there is one.
        output: the system's text.
        references: the texts to compare with.
    """

    where: str
    key: str | None = None
    output: str | None = None
    references: tuple[str, ...] = ()


def read_rows(
    file: Path, kind: str, *, output: bool, references: bool, encoding: str = UTF8
) -> list[Row]:
    """All rows of a "tsv", "csv" or "jsonl" file.

    Args:
        file: where.
        kind: its format.
        output: whether each row must hold an output.
        references: whether each row must hold references.
        encoding: of the file.

    Raises:
        DataError: the file, the line and the field.
    """
    wanted = [*([OUTPUT] if output else []), *([REFERENCES] if references else [])]
    named = _jsonl(file, encoding) if kind == "jsonl" else _table(file, kind, wanted, encoding)
    rows: list[Row] = []
    for where, values in named:
        key = next((v for name, v in values.items() if name.casefold() == _KEY), None)
        if key is not None and not isinstance(key, str):
            raise DataError(f"{where}, field '{_KEY}': expected a text, found {key!r}")
        if rows and (key is None) != (rows[0].key is None):
            raise DataError(f"{where}: field '{_KEY}' is missing; all rows have one, or none has")
        rows.append(
            Row(
                where,
                key.strip() if key is not None else None,
                _output(where, values) if output else None,
                _references(where, values) if references else (),
            )
        )
    if not rows:
        raise DataError(f"{file}: is empty")
    return rows


def _output(where: str, values: dict[str, Any]) -> str:
    text = _field(where, values, OUTPUT)
    if not isinstance(text, str):
        raise DataError(f"{where}, field '{OUTPUT[0]}': expected a text, found {text!r}")
    return text.strip()


def _references(where: str, values: dict[str, Any]) -> tuple[str, ...]:
    given = _field(where, values, REFERENCES)
    texts = given if isinstance(given, list) else [given]
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise DataError(
            f"{where}: expected a reference that is not empty, or a list of such, found {given!r}"
        )
    return tuple(text.strip() for text in texts)


def _field(where: str, values: dict[str, Any], names: Sequence[str]) -> Any:
    for name in names:
        if name in values:
            return values[name]
    raise DataError(f"{where}: field '{names[0]}' is missing{did_you_mean(names[0], values)}")


def _jsonl(file: Path, encoding: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in text_lines(file, encoding):
        if line.strip():
            where = f"{file}, line {number}"
            yield where, json_row(where, line)


def _table(
    file: Path, kind: str, wanted: Sequence[Sequence[str]], encoding: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    header: list[str] = []
    for where, given in (_cells if kind == "csv" else _tabbed)(file, encoding):
        cells = [_mended(cell) for cell in given]
        if not header:
            first = [cell.casefold() for cell in cells]
            header = _header(where, first, wanted)
            if _titles(first):
                continue
        if len(cells) != len(header):
            raise DataError(
                f"{where}: expected {len(header)} fields ({', '.join(header)}), found {len(cells)}"
            )
        yield where, dict(zip(header, cells, strict=True))


def _titles(cells: Sequence[str]) -> bool:
    """Whether a first row names columns."""
    return any(cell in (_KEY, *OUTPUT, *REFERENCES) for cell in cells)


def _header(where: str, cells: list[str], wanted: Sequence[Sequence[str]]) -> list[str]:
    """The columns' names; of an MR and one more column, that one is what is wanted."""
    texts = " and ".join(names[0] for names in wanted)
    header = cells if _titles(cells) else [_KEY, ""]
    if len(wanted) == 1 and len(cells) == 2 and _KEY in header:
        header = [name if name == _KEY else wanted[0][0] for name in header]
    if len(set(header)) < len(header) or not all(set(names) & {*header} for names in wanted):
        raise DataError(
            f"{where}: expected the columns {_KEY} and {texts}, found "
            f"{', '.join(cell[:40] for cell in cells[:10])}"
        )
    return header


def _tabbed(file: Path, encoding: str) -> Iterator[tuple[str, list[str]]]:
    for number, line in text_lines(file, encoding):
        if line.strip():
            cells = line.rstrip("\r\n").split("\t")
            yield f"{file}, line {number}", [_EDGE.sub("", cell) for cell in cells]


def _cells(file: Path, encoding: str) -> Iterator[tuple[str, list[str]]]:
    reader = csv.reader((line for _, line in text_lines(file, encoding)), strict=True)
    line = 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield f"{file}, line {line}", cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{file}, line {line}: not valid CSV ({error})") from error


def _mended(cell: str) -> str:
    for wrong, right in _MENDED.items():
        cell = cell.replace(wrong, right)
    return cell.strip()
