"""XSUM (Narayan et al. 2018): BBC articles (`document`) and a sentence that sums up (`summary`).

A JSONL or Parquet file, or the hub's: `hub:EdinburghNLP/xsum:train`, `:validation`, `:test`. Rows
with an empty document or summary, of which the published files have a few, are left out and
counted.

Li & Liang 2021 (6.4) train on some sections of the BBC and test on others: *news-to-sports* trains
on news and tests on sport; *within-news* trains on world, UK and business and tests on the other
news (health, technology and more). They tell the section by the article's URL. The hub's rows
have `document`, `summary` and `id` alone, so one of these must come from you:

- a column `section` (a text or a list of texts), or a column `url`, as the original release has it
  in the first lines of each `ID.summary`. The URL `.../news/world-europe-38937141` is in the
  sections news, world-europe and world. With it a recipe names the sections of each split:
  `only: {train: {sections: [world, uk, business]}, test: {sections: [health, technology]}}`;
- a file of the ids to keep, one a line, compared with the column `id`:
  `only: {train: {ids: news.txt}, test: {ids: sport.txt}}`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from foreword.data.lines import show, text_lines
from foreword.data.rows import Request, Row
from foreword.data.sources import HUB, data_file, hub_rows
from foreword.data.tables import Named, jsonl, parquet
from foreword.errors import DataError

_URL = re.compile(r".*bbc\.co(?:m|\.uk)/(?P<path>[^?#]*)", re.DOTALL)
_NUMBER = re.compile(r"-?\d+$")


def read(request: Request) -> Iterator[Row]:
    """The documents of a file that are asked for."""
    ids = None if request.ids is None else _ids(request.ids, request.encoding)
    wanted = {section.casefold() for section in request.sections}
    seen: set[str] = set()
    total = kept = 0
    for where, columns in _rows(request.path, request.encoding):
        total += 1
        if wanted:
            own = _own_sections(where, columns)
            seen |= own
            if not wanted & own:
                continue
        if ids is not None and _id(where, columns) not in ids:
            continue
        kept += 1
        if any(_blank(columns, name) for name in ("document", "summary")[: 1 + request.answers]):
            request.empty.append(where)
            continue
        yield Row(where, columns)
    if wanted and not wanted & seen:
        raise DataError(
            f"{request.path}: no document is in the sections {', '.join(request.sections)}; there "
            f"are {', '.join(sorted(seen)[:20])}"
        )
    if wanted or ids is not None:
        request.notes.append(f"{kept:,} of {total:,} documents are the ones asked for")


def sections_of(url: str) -> set[str]:
    """The BBC's sections in a URL, in small letters; none where it is no article of the BBC's."""
    match = _URL.match(url.strip().casefold())
    sections = set()
    for part in match["path"].split("/")[:3] if match else []:
        name = _NUMBER.sub("", part)
        sections |= {name, name.split("-")[0]} - {""}
    return sections


def _own_sections(where: str, columns: dict[str, Any]) -> set[str]:
    given = columns.get("section")
    if isinstance(given, list) and all(isinstance(one, str) for one in given):
        return {one.strip().casefold() for one in given}
    if isinstance(given, str):
        return {given.strip().casefold()}
    url = columns.get("url")
    if isinstance(url, str):
        return sections_of(url)
    raise DataError(
        f"{where}: expected a text in the field 'section' or 'url' to tell its section by, found "
        f"{show(given if given is not None else url)}; or give files of ids in task.data.only"
    )


def _id(where: str, columns: dict[str, Any]) -> str:
    given = columns.get("id")
    if not isinstance(given, str | int):
        raise DataError(f"{where}, field 'id': expected a text or a number, found {show(given)}")
    return str(given)


def _ids(file: Path, encoding: str) -> set[str]:
    ids = {line.strip() for _, line in text_lines(file, encoding)} - {""}
    if not ids:
        raise DataError(f"{file}: holds no ids; expected one a line")
    return ids


def _blank(columns: dict[str, Any], name: str) -> bool:
    value = columns.get(name, "-")  # a column that is not there is a mistake, not an empty row
    return value is None or (isinstance(value, str) and not value.strip())


def _rows(path: str, encoding: str) -> Iterator[Named]:
    if path.startswith(HUB):
        return hub_rows(path)
    file = data_file(path)
    readers = {".jsonl": jsonl, ".json": jsonl, ".parquet": parquet}
    if file.suffix.lower() not in readers:
        raise DataError(
            f"{file}: expected a name that ends in .jsonl or .parquet, or "
            "hub:EdinburghNLP/xsum:SPLIT"
        )
    return readers[file.suffix.lower()](file, encoding)
