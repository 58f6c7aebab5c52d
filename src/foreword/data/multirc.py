"""SuperGLUE's MultiRC (Khashabi et al. 2018): questions whose answers are right or wrong.

{"passage": {"text": "…", "questions": [{"question": "…", "answers":
  [{"text": "…", "label": 1}, {"text": "…", "label": 0}]}]}}
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from foreword.data.answers import CHOICES, RIGHT
from foreword.data.lines import show
from foreword.data.rows import Request, Row
from foreword.data.sources import data_file
from foreword.data.tables import jsonl
from foreword.errors import DataError


def read(request: Request) -> Iterator[Row]:
    """A row for each question, with the fields `passage` and `question`."""
    for where, columns in jsonl(data_file(request.path), request.encoding):
        passage = part(where, columns, "passage", dict)
        text = part(where, passage, "text", str, "passage")
        questions = part(where, passage, "questions", list, "passage")
        for number, question in enumerate(questions):
            inside = f"passage.questions[{number}]"
            if not isinstance(question, dict):
                raise DataError(
                    f"{where}, field '{inside}': expected an object, found {show(question)}"
                )
            answers = part(where, question, "answers", list, inside)
            yield Row(
                where,
                {
                    "passage": text,
                    "question": part(where, question, "question", str, inside),
                    CHOICES: [_text(where, f"{inside}.answers[{i}]", a) for i, a in _each(answers)],
                    RIGHT: _right(where, inside, answers, need=request.answers),
                },
            )


def part(where: str, parent: dict[str, Any], name: str, kind: type, inside: str = "") -> Any:
    """What stands under a name of nested data.

    Args:
        where: file and line.
        parent: what holds it.
        name: in the parent.
        kind: what it must be.
        inside: where the parent stands, for messages.

    Raises:
        DataError: it is not there, or something else.
    """
    known: dict[type, str] = {dict: "an object", list: "a list", str: "a text"}
    value = parent.get(name)
    if not isinstance(value, kind):
        field = f"{inside}.{name}" if inside else name
        raise DataError(f"{where}, field '{field}': expected {known[kind]}, found {show(value)}")
    return value


def _each(answers: list[Any]) -> Iterator[tuple[int, Any]]:
    return iter(enumerate(answers))


def _text(where: str, inside: str, answer: Any) -> str:
    if not isinstance(answer, dict):
        raise DataError(f"{where}, field '{inside}': expected an object, found {show(answer)}")
    text: str = part(where, answer, "text", str, inside)
    return text


def _right(where: str, inside: str, answers: list[Any], *, need: bool) -> list[int] | None:
    """The numbers of the right answers; None where some are not labelled."""
    numbers = []
    for number, answer in _each(answers):
        label = answer.get("label")
        if label is None and not need:
            return None
        if label not in (0, 1):
            raise DataError(
                f"{where}, field '{inside}.answers[{number}].label': expected 1 or 0, found "
                f"{show(label)}"
            )
        if label:
            numbers.append(number)
    return numbers
