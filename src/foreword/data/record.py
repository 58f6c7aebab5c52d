"""SuperGLUE's ReCoRD (Zhang et al. 2018): which entity of a passage is missing in a sentence.

    {"passage": {"text": "…", "entities": [{"start": 0, "end": 4}]},
     "qas": [{"query": "… @placeholder …", "answers": [{"text": "…"}]}]}

`end` is the last character of an entity, and not the one after it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from foreword.data.answers import CHOICES, RIGHT
from foreword.data.lines import show
from foreword.data.multirc import part
from foreword.data.rows import Request, Row
from foreword.data.sources import data_file
from foreword.data.tables import jsonl
from foreword.errors import DataError

PLACEHOLDER = "@placeholder"


def read(request: Request) -> Iterator[Row]:
    """A row for each sentence, with the fields `passage`, `query`, and what of the query stands
    `before` and `after` the missing entity; the choices are the passage's entities, each once."""
    for where, columns in jsonl(data_file(request.path), request.encoding):
        passage = part(where, columns, "passage", dict)
        text = part(where, passage, "text", str, "passage")
        entities = _entities(where, text, part(where, passage, "entities", list, "passage"))
        for number, asks in enumerate(part(where, columns, "qas", list)):
            inside = f"qas[{number}]"
            if not isinstance(asks, dict):
                raise DataError(
                    f"{where}, field '{inside}': expected an object, found {show(asks)}"
                )
            query = part(where, asks, "query", str, inside)
            before, placeholder, after = query.partition(PLACEHOLDER)
            if not placeholder:
                raise DataError(
                    f"{where}, field '{inside}.query': expected a text with {PLACEHOLDER}, found "
                    f"{show(query)}"
                )
            yield Row(
                where,
                {
                    "passage": text,
                    "query": query,
                    "before": before.rstrip(),
                    "after": after,
                    CHOICES: entities,
                    RIGHT: _right(where, inside, asks, entities, need=request.answers),
                },
            )


def _entities(where: str, text: str, given: list[Any]) -> list[str]:
    entities: dict[str, None] = {}
    for number, one in enumerate(given):
        span = (one.get("start"), one.get("end")) if isinstance(one, dict) else (None, None)
        start, end = span
        if not isinstance(start, int) or not isinstance(end, int) or not 0 <= start <= end:
            raise DataError(
                f"{where}, field 'passage.entities[{number}]': expected `start` and `end` as "
                f"characters of the passage, found {show(one)}"
            )
        entities.setdefault(text[start : end + 1])
    return list(entities)


def _right(
    where: str, inside: str, asks: dict[str, Any], entities: list[str], *, need: bool
) -> list[int] | None:
    """The numbers of the right entities, each once."""
    if asks.get("answers") is None and not need:
        return None
    numbers: set[int] = set()
    for number, answer in enumerate(part(where, asks, "answers", list, inside)):
        text = answer.get("text") if isinstance(answer, dict) else None
        if text not in entities:
            raise DataError(
                f"{where}, field '{inside}.answers[{number}].text': expected an entity of the "
                f"passage, found {show(text)}"
            )
        numbers.add(entities.index(text))
    return sorted(numbers)
