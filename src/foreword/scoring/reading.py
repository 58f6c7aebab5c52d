"""Outputs and references from files, paired: by MR where both files have one, else by order.

Files are what the E2E challenge's tool takes - text, TSV, CSV - and JSONL. The format is told by
the suffix; a file with another one is JSONL if its first line is an object, TSV if that has a tab,
else text.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from foreword.data.lines import UTF8, text_lines
from foreword.errors import DataError
from foreword.scoring.rows import Row, read_rows

_FORMATS = {".txt": "text", ".tsv": "tsv", ".csv": "csv", ".jsonl": "jsonl", ".json": "jsonl"}

Pairs = tuple[list[str], list[tuple[str, ...]]]
"""Outputs, and the references of each."""


def read_pairs(outputs: Path, references: Path | None = None, *, encoding: str = UTF8) -> Pairs:
    """Read what is to be scored.

    Args:
        outputs: one a line of text, one a row of a table or of JSONL.
        references: text with an empty line between records (without any: one reference a line), a
            table with one a row, or JSONL; None where the outputs' own rows hold them.
        encoding: of both files.

    Raises:
        DataError: the file, the line, what was found and what was expected.
    """
    rows = _outputs(outputs, encoding, alone=references is None)
    if references is None:
        return [row.output or "" for row in rows], [row.references for row in rows]
    records = _references(references, encoding)
    by_record = rows[0].key is not None and records[0].key is not None
    if by_record:
        records = _merged(records)
        rows = _matched(outputs, rows, references, records)
    elif len(rows) != len(records):
        raise DataError(
            f"{outputs} has {len(rows)} outputs (the last in {rows[-1].where}), {references} has "
            f"{len(records)} records (the last in {records[-1].where}); expected one output for "
            "each record. Records of a text file are parted by empty lines"
        )
    return [row.output or "" for row in rows], [row.references for row in records]


def _outputs(file: Path, encoding: str, *, alone: bool) -> list[Row]:
    kind = _format(file, encoding)
    if kind != "text":
        return read_rows(file, kind, output=True, references=alone, encoding=encoding)
    if alone:
        raise DataError(f"{file}: is plain text, which holds no references; name their file too")
    rows = [
        Row(f"{file}, line {number}", output=line.strip())
        for number, line in text_lines(file, encoding)
    ]
    if not rows:
        raise DataError(f"{file}: is empty")
    return rows


def _references(file: Path, encoding: str) -> list[Row]:
    kind = _format(file, encoding)
    if kind == "text":
        return _text_records(file, encoding)
    rows = read_rows(file, kind, output=False, references=True, encoding=encoding)
    if kind == "jsonl":
        return rows
    if rows[0].key is None:
        return rows
    return [_one(list(same)) for _, same in groupby(rows, key=lambda row: row.key)]


def _text_records(file: Path, encoding: str) -> list[Row]:
    lines = [(number, line.strip()) for number, line in text_lines(file, encoding)]
    while lines and not lines[-1][1]:
        lines.pop()
    if not lines:
        raise DataError(f"{file}: is empty")
    single = all(line for _, line in lines)
    records: list[Row] = []
    fresh = True
    for number, line in lines:
        where = f"{file}, line {number}"
        if not line and fresh:
            raise DataError(f"{where}: an empty line where a reference was expected")
        if line and (fresh or single):
            records.append(Row(where, references=(line,)))
        elif line:
            records[-1] = _one([records[-1], Row(where, references=(line,))])
        fresh = not line
    return records


def _merged(records: Sequence[Row]) -> list[Row]:
    """Rows of the same record as one, wherever they stand."""
    same: dict[str | None, list[Row]] = {}
    for row in records:
        same.setdefault(row.key, []).append(row)
    return [_one(rows) for rows in same.values()]


def _one(rows: list[Row]) -> Row:
    texts = tuple(text for row in rows for text in row.references)
    return Row(rows[0].where, key=rows[0].key, references=texts)


def _matched(
    outputs: Path, rows: Sequence[Row], references: Path, records: Sequence[Row]
) -> list[Row]:
    """The outputs in the order of the records."""
    by_key: dict[str | None, Row] = {}
    for row in rows:
        if row.key in by_key:
            raise DataError(
                f"{row.where}: a second output for the MR {row.key!r}; the first is in "
                f"{by_key[row.key].where}"
            )
        by_key[row.key] = row
    known = {row.key for row in records}
    for row in rows:
        if row.key not in known:
            raise DataError(f"{row.where}: {references} has no record with the MR {row.key!r}")
    missing = [row for row in records if row.key not in by_key]
    if missing:
        more = f", nor for {len(missing) - 1} others" if len(missing) > 1 else ""
        raise DataError(
            f"{outputs}: no output for the MR {missing[0].key!r} of {missing[0].where}{more}"
        )
    return [by_key[row.key] for row in records]


def _format(file: Path, encoding: str) -> str:
    known = _FORMATS.get(file.suffix.lower())
    if known:
        return known
    first = next((line for _, line in text_lines(file, encoding) if line.strip()), "")
    if first.lstrip().startswith("{"):
        return "jsonl"
    return "tsv" if "\t" in first else "text"
