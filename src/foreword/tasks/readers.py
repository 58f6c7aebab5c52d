"""Data files to examples. A malformed file is reported by line and field.

JSONL and CSV are read by the standard library and not by `datasets`: its JSON reader gives every
record the keys of all others and its own key order, its CSV reader guesses types ("NA" becomes
nothing, "007" becomes 7), and neither knows the line of a mistake. Parquet goes through `datasets`.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from foreword.errors import DataError, did_you_mean
from foreword.tasks.e2e import parse_meaning
from foreword.tasks.example import Example, Field

csv.field_size_limit(2**31 - 1)
BUNDLED = Path(__file__).parent.parent / "bundled"
Row = tuple[str, dict[str, Any]]


def read_examples(
    path: str | Path,
    format: str,
    *,
    references: str = "references",
    group: str | None = None,
    need_references: bool = True,
    merge: bool = True,
) -> list[Example]:
    """Read a data file.

    Args:
        path: the file; `foreword/<task>/<split>` is a bundled one.
        format: "jsonl", "csv", "tsv", "parquet" or "e2e".
        references: column that holds the answer, or a list of answers.
        group: column to report results apart by.
        need_references: False to read input alone.
        merge: make rows that ask the same one example with all their references, as metrics want
            it; False keeps the file's rows and their order, as training wants it.

    Raises:
        DataError: the file, the line and the field, what was found and what was expected.
    """
    file = data_file(path)
    rows = _READERS[format](file)
    if format == "e2e":
        references = "ref"
    examples = [
        _example(where, row, references, group, need_references, e2e=format == "e2e")
        for where, row in rows
    ]
    if not examples:
        raise DataError(f"{file}: no examples in it")
    return _merge(examples) if merge else examples


def data_file(path: str | Path) -> Path:
    """Where a data file lies; bundled names resolve into the package."""
    name = str(path)
    if not name.startswith("foreword/"):
        return Path(path)
    known = {f"foreword/{file.parent.name}/{file.stem}": file for file in BUNDLED.glob("*/*.jsonl")}
    if name not in known:
        raise DataError(f"'{name}': no such bundled data{did_you_mean(name, known)}")
    return known[name]


def _example(
    where: str, row: dict[str, Any], references: str, group: str | None, need: bool, *, e2e: bool
) -> Example:
    answers: tuple[str, ...] = ()
    if row.get(references) is not None:
        answers = _answers(where, references, row[references])
    if need and not answers:
        raise DataError(_missing(where, references, row, "the reference text, or a list of them"))
    if group is not None and group not in row:
        raise DataError(_missing(where, group, row, "the group this row is reported under"))
    columns = {name: value for name, value in row.items() if name != references}
    fields = {"record": _meaning(where, columns)} if e2e else fields_of(where, columns)
    return Example(
        fields, answers, None if group is None else _group(where, group, row[group]), where
    )


def fields_of(where: str, columns: Mapping[str, Any]) -> dict[str, Field]:
    """Columns as fields: texts, numbers, lists of texts, records; empty ones are left out.

    Raises:
        DataError: a column holds something else.
    """
    return {
        name: _field(where, name, value) for name, value in columns.items() if value is not None
    }


def _group(where: str, name: str, value: Any) -> str | None:
    if value is None or value == "":
        return None
    if value == "all":
        raise DataError(
            f"{where}, field '{name}': the group 'all' is what all examples together are called; "
            "rename it"
        )
    if isinstance(value, bool):
        return name if value else f"not {name}"
    return str(value)


def _meaning(where: str, columns: dict[str, Any]) -> dict[str, str]:
    if not isinstance(columns.get("mr"), str):
        raise DataError(_missing(where, "mr", columns, "a meaning representation: name[X], ..."))
    try:
        return parse_meaning(columns["mr"])
    except ValueError as error:
        raise DataError(f"{where}, field 'mr': {error}") from error


def _answers(where: str, name: str, value: Any) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    for item in values:
        if not isinstance(item, str) or not item.strip():
            raise DataError(
                f"{where}, field '{name}': expected a text that is not empty, or a list of such "
                f"texts, found {_show(item)}"
            )
    return tuple(values)


def _field(where: str, name: str, value: Any) -> Field:
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return _scalar(value)
    if isinstance(value, dict):
        # Parquet gives every record the keys of all others, empty where a record has none.
        value = {key: inner for key, inner in value.items() if inner is not None}
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            if not isinstance(inner, str | bool | int | float):
                raise DataError(
                    f"{where}, field '{name}.{key}': expected a text or a number, found "
                    f"{_show(inner)}"
                )
        return {key: _scalar(inner) for key, inner in value.items()}
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    raise DataError(
        f"{where}, field '{name}': expected a text, a number, a list of texts, or a record of "
        f"names and values, found {_show(value)}"
    )


def _scalar(value: str | bool | int | float) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _merge(examples: list[Example]) -> list[Example]:
    """Group rows with equal fields, in the order of their first appearance."""
    grouped: dict[Any, list[Example]] = {}
    for example in examples:
        key = tuple(
            (name, tuple(value.items()) if isinstance(value, dict) else value)
            for name, value in example.fields.items()
        )
        grouped.setdefault((key, example.group), []).append(example)
    return [
        Example(
            same[0].fields,
            tuple(reference for one in same for reference in one.references),
            same[0].group,
            same[0].where,
        )
        for same in grouped.values()
    ]


def text_lines(file: Path) -> Iterator[tuple[int, str]]:
    """A text file's lines with their numbers, from 1; a byte order mark is left out.

    Raises:
        DataError: it cannot be read, or a line is not UTF-8 text.
    """
    try:
        with file.open("rb") as handle:
            for number, raw in enumerate(handle, start=1):
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


def _jsonl(file: Path) -> Iterator[Row]:
    for number, line in text_lines(file):
        if not line.strip():
            continue
        where = f"{file}, line {number}"
        yield where, json_row(where, line)


def json_row(where: str, line: str) -> dict[str, Any]:
    """One line of JSONL: named values.

    Raises:
        DataError: it is not a JSON object, or holds half a character.
    """
    try:
        row = json.loads(line, object_pairs_hook=_no_twice)
        json.dumps(row, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise DataError(
            f"{where}, column {error.colno}: not valid JSON ({error.msg}); expected one object a "
            "line"
        ) from error
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where}: holds half of a surrogate pair ({error.object[error.start]!r})"
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not valid JSON ({error})") from error
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected an object with named fields, found {_show(row)}")
    return row


def _no_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name '{twice}' stands twice in one object")
    return found


def _table(delimiter: str, columns: tuple[str, ...] = ()) -> Any:
    def read(file: Path) -> Iterator[Row]:
        plain = delimiter == "\t"
        reader = csv.reader(
            (line for _, line in text_lines(file)),
            delimiter=delimiter,
            quoting=csv.QUOTE_NONE if plain else csv.QUOTE_MINIMAL,
            strict=not plain,
        )
        header: list[str] = []
        start = 1
        try:
            for cells in reader:
                line, start = start, reader.line_num + 1
                where = f"{file}, line {line}"
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
            raise DataError(f"{file}, line {start}: not valid CSV ({error})") from error

    return read


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


def _parquet(file: Path) -> Iterator[Row]:
    from datasets import Dataset, disable_progress_bars
    from pyarrow import ArrowException
    from pyarrow import parquet as arrow_parquet

    disable_progress_bars()
    try:
        table = Dataset(arrow_parquet.read_table(file))
        yield from ((f"{file}, row {i + 1}", row) for i, row in enumerate(table))
    except FileNotFoundError as error:
        raise DataError(f"{file}: no such file") from error
    except (ArrowException, OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{file}: not a Parquet file that can be read: {error}") from error


_READERS = {
    "jsonl": _jsonl,
    "csv": _table(","),
    "tsv": _table("\t"),
    "parquet": _parquet,
    "e2e": _table(",", ("mr", "ref")),
}


def _missing(where: str, name: str, row: dict[str, Any], expected: str) -> str:
    known = [_short(column) for column in row if column != name]
    state = "is empty" if name in row else "is missing"
    hint = "" if name in row else did_you_mean(name, known)
    return f"{where}: field '{name}' {state}; expected {expected}{hint}"


def _show(value: Any) -> str:
    return _short(repr(value))


def _listed(names: list[str]) -> str:
    """The first names of a header."""
    return ", ".join([*map(_short, names[:10]), *(["..."] if len(names) > 10 else [])])


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
