"""DART (Nan et al. 2021): triples of many sources and texts that say them, as JSON or XML.

Each set of triples is a row with all its texts as references:

- `triples`: linearised as `linearise_triples` says, with the relation in lower case and nothing
  else changed, as in Li & Liang's code.
- `size`: how many triples.
- `source`: where its texts come from, such as e2e, webnlg or WikiSQL_lily; the first where texts
  of one set come from several. Reporting apart by it is `group: source`.

`[TABLECONTEXT]` and `[TITLE]` stay as they stand.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from foreword.data.lines import json_file, show
from foreword.data.rows import Request, Row
from foreword.data.sources import data_file
from foreword.data.triples import Entry, Triple, linearise_triples, read_entries
from foreword.errors import DataError


def read(request: Request) -> Iterator[Row]:
    """The sets of triples of a JSON or (by the ending .xml) an XML file."""
    file = data_file(request.path)
    entries_of = read_entries if file.suffix.lower() == ".xml" else _json_entries
    entries = entries_of(file, request.encoding)
    for entry in entries:
        yield Row(
            entry.where,
            {
                "triples": linearise_triples([(s, r.lower(), o) for s, r, o in entry.triples]),
                "size": len(entry.triples),
                "source": entry.texts[0][0] if entry.texts else None,
                **({"references": [text for _, text in entry.texts]} if entry.texts else {}),
            },
        )


def _json_entries(file: Path, encoding: str) -> Iterator[Entry]:
    content = json_file(file, encoding)
    if not isinstance(content, list):
        raise DataError(f"{file}: expected a list of sets of triples, found {show(content)}")
    for number, item in enumerate(content, start=1):
        where = f"{file}, set {number}"
        triples = item.get("tripleset") if isinstance(item, dict) else None
        if not isinstance(triples, list) or not triples:
            raise DataError(f"{where}: expected an object with a tripleset, found {show(item)}")
        texts = item.get("annotations", [])
        if not isinstance(texts, list):
            raise DataError(f"{where}, annotations: expected a list, found {show(texts)}")
        yield Entry(
            where,
            "",
            tuple(_triple(where, triple) for triple in triples),
            tuple(_text(f"{where}, annotation {i}", text) for i, text in enumerate(texts, 1)),
        )


def _triple(where: str, given: Any) -> Triple:
    if not isinstance(given, list) or len(given) != 3 or not all(_is_text(x) for x in given):
        raise DataError(
            f"{where}, tripleset: expected [subject, relation, object], three texts, found "
            f"{show(given)}"
        )
    return given[0], given[1], given[2]


def _text(where: str, given: Any) -> tuple[str, str]:
    if not isinstance(given, dict) or not _is_text(given.get("text")):
        raise DataError(f"{where}: expected an object with a text, found {show(given)}")
    source = given.get("source", "")
    return (source if isinstance(source, str) else show(source)), given["text"]


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())
