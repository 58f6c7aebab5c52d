"""Rows with named columns: JSONL, CSV, TSV and Parquet.

JSONL and CSV are read by the standard library and not by `datasets`: its JSON reader gives every
record the keys of all others and its own key order, its CSV reader guesses types ("NA" becomes
nothing, "007" becomes 7), and neither knows the line of a mistake. Parquet goes through `datasets`.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from foreword.common import opening
from foreword.data.lines import UTF8, check_encoding, json_row, short, text_lines
from foreword.errors import DataError

csv.field_size_limit(2**31 - 1)
Line = tuple[int, str]
"""A line's number, from 1, and its text."""
Named = tuple[str, dict[str, Any]]
"""Where a row stands, and its columns."""


def jsonl(
    file: Path, encoding: str = UTF8, lines: tuple[int, int | None] = (0, None)
) -> Iterator[Named]:
    """One object a line; empty lines are passed over. `lines` is as `Request` has it."""
    return jsonl_rows(str(file), islice(text_lines(file, encoding), *lines))


def jsonl_rows(name: str, lines: Iterable[Line]) -> Iterator[Named]:
    """The same of lines that are read already; `name` is what messages call their source."""
    for number, line in lines:
        if line.strip():
            where = f"{name}, line {number}"
            yield where, json_row(where, line)


def table(delimiter: str, columns: tuple[str, ...] = ()) -> Callable[..., Iterator[Named]]:
    """A reader of cells under a header. Tabs stand between cells without quotes, as in GLUE.

    Args:
        delimiter: what stands between cells.
        columns: names that the header must have.
    """

    def read(file: Path, encoding: str = UTF8) -> Iterator[Named]:
        return table_rows(str(file), text_lines(file, encoding), delimiter, columns)

    return read


def table_rows(
    name: str, lines: Iterable[Line], delimiter: str, columns: tuple[str, ...] = ()
) -> Iterator[Named]:
    """The same of lines that are read already; `name` is what messages call their source."""
    plain = delimiter == "\t"
    reader = csv.reader(
        (line for _, line in lines),
        delimiter=delimiter,
        quoting=csv.QUOTE_NONE if plain else csv.QUOTE_MINIMAL,
        strict=not plain,
    )
    header: list[str] = []
    start = 1
    try:
        for cells in reader:
            line, start = start, reader.line_num + 1
            where = f"{name}, line {line}"
            if not header:
                header = _header(where, cells, columns)
            elif cells:
                if len(cells) != len(header):
                    raise DataError(
                        f"{where}: expected {len(header)} fields "
                        f"({_listed(header)}), found {len(cells)}"
                    )
                yield where, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise DataError(f"{name}, line {start}: not valid CSV ({error})") from error


def parquet(file: Path, encoding: str = UTF8) -> Iterator[Named]:
    """Rows of a Parquet file, whose texts have one encoding alone."""
    if check_encoding(encoding) != UTF8:
        raise DataError(f"{file}: the texts of a Parquet file are UTF-8; leave `encoding` out")
    from datasets import Dataset, disable_progress_bars
    from pyarrow import ArrowException
    from pyarrow import parquet as arrow_parquet

    disable_progress_bars()
    try:
        _check(file)
        rows = Dataset(arrow_parquet.read_table(file))
        yield from ((f"{file}, row {i + 1}", row) for i, row in enumerate(rows))
    except FileNotFoundError as error:
        raise DataError(f"{file}: no such file") from error
    except (ArrowException, OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{file}: not a Parquet file that can be read: {error}") from error


def _check(file: Path) -> None:
    """Raise OSError unless Arrow may open this: a regular file, or a folder of such alone."""
    if file.is_dir():
        opening.check_folder(file)
    else:
        opening.check_regular(file)


def _header(where: str, cells: list[str], columns: tuple[str, ...]) -> list[str]:
    names = [cell.strip() for cell in cells]
    if not all(names) or len(set(names)) < len(names):
        raise DataError(
            f"{where}: expected a header of distinct column names, found {_listed(names)}"
        )
    for column in columns:
        if column not in names:
            raise DataError(
                f"{where}: expected the columns {', '.join(columns)}, found {_listed(names)}"
            )
    return names


def _listed(names: list[str]) -> str:
    """The first names of a header."""
    return ", ".join([*map(short, names[:10]), *(["..."] if len(names) > 10 else [])])
