"""Data files to examples. A malformed file is reported by line and field."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from foreword.common.progress import Progress
from foreword.data import conll, dart, multirc, record, squad, webnlg, xsum
from foreword.data.answers import CHOICES, RIGHT, Columns
from foreword.data.conversation import Measured
from foreword.data.e2e import parse_meaning
from foreword.data.example import Example, Field, Unusable
from foreword.data.fields import fields_of, missing
from foreword.data.lines import UTF8, check_encoding, json_row, text_lines
from foreword.data.once import read_once
from foreword.data.rows import Reader, Request, Row
from foreword.data.sources import HUB, data_file, hub_rows, is_bundled
from foreword.data.stored import restored
from foreword.data.tables import Named, jsonl, parquet, table
from foreword.errors import DataError, UserError, did_you_mean
from foreword.names import FORMATS

__all__ = [
    "READERS",
    "Reading",
    "data_file",
    "fields_of",
    "json_row",
    "merged",
    "read_data",
    "read_examples",
    "text_lines",
]

_REFERENCES = "references"
_OWN_REFERENCES = {"e2e": "ref", "xsum": "summary"}


@dataclass(frozen=True)
class Reading:
    """What was read, and what is to be said of it.

    Attributes:
        examples: never empty.
        empty: where rows that hold nothing to read were left out.
        notes: what else was left out or changed, a sentence each.
    """

    examples: Sequence[Example]
    empty: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_examples(path: str | Path, format: str, **options: Any) -> Sequence[Example]:
    """Read a data file; the arguments are those of `read_data`, and so are the mistakes."""
    return read_data(path, format, **options).examples


def read_data(
    path: str | Path,
    format: str,
    *,
    references: str = _REFERENCES,
    label: str | None = None,
    label_list: str | None = None,
    separator: str | None = None,
    number: str | None = None,
    choices: str | tuple[str, ...] | None = None,
    right: str = RIGHT,
    group: str | None = None,
    inputs: Iterable[str] | None = None,
    words: int = 1,
    tags: int | None = None,
    messages: str | None = None,
    tools: str | None = None,
    measured: Measured = "last",
    paired: str | None = None,
    similarity: str | None = None,
    sections: tuple[str, ...] = (),
    ids: str | Path | None = None,
    encoding: str = UTF8,
    need_references: bool = True,
    merge: bool = True,
    progress: Progress | None = None,
) -> Reading:
    """Read a data file.

    Args:
        path: the file, or a folder of WebNLG's; `foreword/<task>/<split>` is a bundled one,
            `hub:OWNER/NAME:SPLIT` one of the Hugging Face hub (tables and xsum).
        format: a name in `foreword.names.FORMATS`.
        references: column that holds the answer, or a list of answers; beside another column of
            answers a column like others.
        label: column that holds the class; rows are then classified, and one that is empty but for
            its label is left out and counted.
        label_list: the same of any number of labels, as a list or as a text.
        separator: what stands between the labels of such a text.
        number: the same of a number.
        choices: the same of a list of answers to choose among, or columns with an answer in each.
        right: column that says which of them is right: a number from 0, a text, or a list of such.
        group: column to report results apart by.
        inputs: the fields that templates name, where that is known: a column among them that no
            template can say is then refused here, and a row is empty where all of them are.
        words: conll's column of words, from 1.
        tags: conll's column of tags, from 1; without it the last.
        messages: column that holds a conversation, of which the assistant's turns are asked.
        tools: column with what the assistant may call in a conversation.
        measured: which turns of the assistant are measured, where rows are merged.
        paired: column with a text that belongs to the row's own, or a list of such.
        similarity: column with a number that says how alike the two are.
        sections: xsum's sections to keep; () for all.
        ids: xsum's file of the ids to keep.
        encoding: of text files, by any name that Python knows; `foreword/` data is UTF-8.
        need_references: False to read inputs alone; labels, tags and spans need not be there then.
        merge: make rows that ask for the same text one example with all their references, as
            metrics want it; False keeps the file's rows and their order, as training wants it.
            Rows with labels, words or spans stay as they are, and conversations become one example
            for each turn that is measured.
        progress: told how many rows are read, where that takes its time.

    Raises:
        DataError: the file, the line and the field, what was found and what was expected.
        UserError: there is no such format.
    """
    if references == _REFERENCES:
        references = _OWN_REFERENCES.get(format, references)
    if choices is None and format in FORMATS and FORMATS[format].asks == "choice":
        choices, right = CHOICES, RIGHT
    file = None if ids is None else Path(ids)
    own = UTF8 if is_bundled(path) else check_encoding(encoding)
    request = Request(str(path), need_references, words, tags, sections, file, own)
    names = None if inputs is None else tuple(dict.fromkeys(inputs))
    columns = Columns(
        references,
        label,
        label_list,
        separator,
        number,
        choices,
        right,
        messages,
        tools,
        measured,
        paired,
        similarity,
    )
    options = [asdict(columns), group, names]

    def read(request: Request) -> Iterator[Example]:
        for row in reader(format)(request):
            example = _example(row, columns, group, names, need_references)
            if columns.own is not None and _holds_nothing(example, row, names, group):
                request.empty.append(row.where)
            else:
                _refuse_null(row, names)
                yield example

    examples = read_once(request, format, options, read, progress)
    if not examples:
        left = f" but {len(request.empty)} empty rows" if request.empty else ""
        raise DataError(f"{path}: no examples in it{left}")
    return Reading(
        merged(examples) if merge and columns.own is None else examples,
        tuple(request.empty),
        tuple(request.notes),
    )


def reader(format: str) -> Reader:
    """What reads a format; UserError where there is none of this name."""
    known = FORMATS.get(format)
    if known is None:
        raise UserError(f"format: {format!r} is not known{did_you_mean(format, FORMATS)}")
    return known.read or READERS[format]


def merged(examples: Sequence[Example]) -> Sequence[Example]:
    """Examples that ask for the same text as one with all their references, in their order.

    Those with labels, words or spans are measured one by one, and stay as they are; a conversation
    becomes one for each turn of the assistant that is measured.
    """
    return restored(examples, "merged", None, lambda: _merged(examples))


def _merged(examples: Sequence[Example]) -> Iterator[Example]:
    import numpy as np

    from foreword.data.alike import Digests

    digests = Digests()
    for number, example in enumerate(examples):
        alone = not example.asks_text or example.conversation is not None
        digests.add(str(number) if alone else _content(example))
    alike, at = digests.alike(), 0
    in_order = np.argsort(alike.group, kind="stable")
    for size in alike.sizes:
        first, *others = (examples[int(number)] for number in in_order[at : at + size])
        at += int(size)
        if first.conversation is not None:
            for part in first.conversation.each_measured():
                yield replace(first, conversation=part, references=part.references)
        elif not others:
            yield first
        else:
            references = (reference for one in (first, *others) for reference in one.references)
            yield Example(first.fields, tuple(references), first.group, first.where)


def _content(example: Example) -> str:
    """What is asked, and the group; of equal ones this text is equal."""
    fields = [
        [name, [value.content] if isinstance(value, Unusable) else value]
        for name, value in example.fields.items()
    ]
    return json.dumps([fields, example.group])


def _example(
    row: Row, columns: Columns, group: str | None, inputs: tuple[str, ...] | None, need: bool
) -> Example:
    where, cells = row.where, row.columns
    right = columns.read(where, cells, need=need)
    asks_text = columns.writes and row.words is None and row.spans is None
    if need and asks_text and not right["references"]:
        raise DataError(
            missing(where, columns.references, cells, "the reference text, or a list of them")
        )
    if group is not None and group not in cells:
        raise DataError(missing(where, group, cells, "the group this row is reported under"))
    fields: dict[str, Field] = row.fields or fields_of(
        where, {name: value for name, value in cells.items() if name not in columns.hidden}
    )
    for name in inputs or ():
        value = fields.get(name)
        if isinstance(value, Unusable):
            raise DataError(value.problem)
    return Example(
        fields,
        group=None if group is None else _group(where, group, cells[group]),
        where=where,
        words=row.words,
        tags=row.tags,
        spans=row.spans,
        **right,
    )


def _refuse_null(row: Row, inputs: tuple[str, ...] | None) -> None:
    """Raise DataError where a field that the templates name is there and holds nothing."""
    for name in inputs or () if row.fields is None else ():
        if name in row.columns and row.columns[name] is None:
            raise DataError(f"{row.where}, field '{name}': is null; expected a text")


def _holds_nothing(
    example: Example, row: Row, inputs: tuple[str, ...] | None, group: str | None
) -> bool:
    """Whether the fields of the input are there and empty; one that is not there is a mistake."""
    names = inputs if inputs is not None else [name for name in example.fields if name != group]
    values = [example.fields.get(name, "") for name in names if name in (row.fields or row.columns)]
    return bool(values) and all(isinstance(value, str) and not value.strip() for value in values)


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


def _tabular(rows: Callable[[Path, str], Iterator[Named]]) -> Reader:
    def read(request: Request) -> Iterator[Row]:
        path = request.path
        named = hub_rows(path) if path.startswith(HUB) else rows(data_file(path), request.encoding)
        return (Row(where, columns) for where, columns in named)

    return read


def _jsonl(request: Request) -> Iterator[Row]:
    def lines(file: Path, encoding: str) -> Iterator[Named]:
        return jsonl(file, encoding, request.lines)

    return _tabular(lines)(request)


def _e2e(request: Request) -> Iterator[Row]:
    columns = ("mr", "ref") if request.answers else ("mr",)
    for where, cells in table(",", columns)(data_file(request.path), request.encoding):
        try:
            record = parse_meaning(cells["mr"])
        except ValueError as error:
            raise DataError(f"{where}, field 'mr': {error}") from error
        yield Row(where, cells, fields={"record": record})


READERS: dict[str, Reader] = {
    "jsonl": _jsonl,
    "csv": _tabular(table(",")),
    "tsv": _tabular(table("\t")),
    "parquet": _tabular(parquet),
    "e2e": _e2e,
    "webnlg": webnlg.read,
    "dart": dart.read,
    "xsum": xsum.read,
    "multirc": multirc.read,
    "record": record.read,
    "conll": conll.read,
    "squad": squad.read,
}
"""Built-in format -> what reads it."""
