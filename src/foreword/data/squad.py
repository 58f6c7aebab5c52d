"""SQuAD JSON (Rajpurkar et al. 2016, 2018): questions whose answers stand in a context.

Version 1.1, and 2.0 with questions that have no answer. Each question is a row with the fields
`question`, `context`, `title` and `id`; its references are the answers' texts, each once; its spans
say where they stand. `answerable` is a column to report apart by: `group: answerable`.

Offsets count characters (code points) from 0, and are checked against the context.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from foreword.data.example import Span
from foreword.data.lines import json_file, show
from foreword.data.rows import Request, Row
from foreword.data.sources import data_file
from foreword.errors import DataError


def read(request: Request) -> Iterator[Row]:
    """The questions of a file."""
    file = data_file(request.path)
    for where, article in _each(str(file), json_file(file, request.encoding), "data"):
        title = article.get("title", "")
        for here, paragraph in _each(where, article, "paragraphs"):
            context = _text(here, paragraph, "context")
            for place, question in _each(here, paragraph, "qas"):
                row = _row(place, question, context, title, request)
                if not context.strip() or not row.columns["question"].strip():
                    request.empty.append(row.where)
                    continue
                yield row


def _row(where: str, given: dict[str, Any], context: str, title: Any, request: Request) -> Row:
    known = given.get("id")
    if isinstance(known, str | int):
        where = f"{where} (id {known})"
    question = _text(where, given, "question")
    impossible = given.get("is_impossible", False)
    if not isinstance(impossible, bool):
        raise DataError(
            f"{where}, field 'is_impossible': expected true or false, found {show(impossible)}"
        )
    spans: tuple[Span, ...] | None = None
    if "answers" in given or request.answers:
        spans = tuple(
            dict.fromkeys(_span(here, one, context) for here, one in _each(where, given, "answers"))
        )
        if impossible and spans:
            raise DataError(f"{where}, field 'answers': is_impossible, but has answers")
        if not impossible and not spans and request.answers:
            raise DataError(
                f"{where}, field 'answers': expected one at least; a question without an answer "
                "says is_impossible: true"
            )
        if not impossible and not spans:
            spans = None
    columns = {
        "id": str(known) if known is not None else None,
        "title": title,
        "question": question,
        "context": context,
        "answerable": not impossible,
    }
    if spans:
        columns["references"] = list(dict.fromkeys(span.text for span in spans))
    return Row(where, columns, spans=spans)


def _span(where: str, given: dict[str, Any], context: str) -> Span:
    text, start = _text(where, given, "text"), given.get("answer_start")
    if not text.strip():
        raise DataError(f"{where}, field 'text': expected a text that is not empty")
    if not isinstance(start, int) or isinstance(start, bool):
        raise DataError(f"{where}, field 'answer_start': expected a number, found {show(start)}")
    stands = context[start : start + len(text)] if start >= 0 else ""
    if stands != text:
        places = [match.start() for match in re.finditer(re.escape(text), context)]
        nearest = min(places, key=lambda at: abs(at - start), default=None)
        hint = "it does not stand in the context" if nearest is None else f"it stands at {nearest}"
        raise DataError(
            f"{where}, field 'answer_start': at {start} stands {show(stands)}, not {show(text)}"
            f"; {hint}"
        )
    return Span(text, start)


def _each(where: str, holder: Any, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a list by name, with where each stands."""
    items = holder.get(name) if isinstance(holder, dict) else None
    if not isinstance(items, list):
        raise DataError(
            f"{where}: expected '{name}', a list, as SQuAD has it, found "
            f"{show(items if isinstance(holder, dict) else holder)}"
        )
    for number, item in enumerate(items):
        here = f"{where}, {name}[{number}]" if name == "data" else f"{where}.{name}[{number}]"
        if not isinstance(item, dict):
            raise DataError(f"{here}: expected an object, found {show(item)}")
        yield here, item


def _text(where: str, holder: dict[str, Any], name: str) -> str:
    value = holder.get(name)
    if not isinstance(value, str):
        raise DataError(f"{where}, field '{name}': expected a text, found {show(value)}")
    return value
