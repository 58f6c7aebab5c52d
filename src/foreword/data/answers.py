"""What would be right for a row of a table: a text, a label, a number, a choice, and so on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from foreword.data.conversation import Measured
from foreword.data.fields import missing
from foreword.data.lines import show
from foreword.data.messages import conversation_of
from foreword.errors import DataError

CHOICES, RIGHT = "choices", "label"
"""Columns of choices, and of which is right, where none are named."""
LARGEST = 1e15
"""The largest number that is told."""


@dataclass(frozen=True)
class Columns:
    """Which columns of a table hold what would be right; at most one kind of answer is asked for.

    Attributes:
        references: the text to write, or a list of such texts, where nothing else is asked for.
        label: the class.
        label_list: any number of labels, as a list or as a text.
        separator: what stands between the labels of such a text; None: there are lists alone.
        number: a number.
        choices: a list of answers to choose among, or such columns, an answer in each.
        right: which of them is right: its number from 0, its text, or a list of such.
        paired: a text that belongs to the row's own, or a list of such.
        similarity: a number that says how alike the two are; then there is one such text.
        messages: a conversation, of which the assistant's turns are asked.
        tools: what the assistant may call in it.
        measured: which of its turns are measured.
    """

    references: str
    label: str | None = None
    label_list: str | None = None
    separator: str | None = None
    number: str | None = None
    choices: str | tuple[str, ...] | None = None
    right: str = RIGHT
    messages: str | None = None
    tools: str | None = None
    measured: Measured = "last"
    paired: str | None = None
    similarity: str | None = None

    @property
    def own(self) -> str | None:
        """The column of an answer that is no text to write."""
        chosen = None if self.choices is None else self.right
        given = (self.label, self.label_list, self.number, chosen, self.paired)
        return next((column for column in given if column is not None), None)

    @property
    def writes(self) -> bool:
        """Whether a text is asked for that is no turn of a conversation."""
        return self.own is None and self.messages is None

    @property
    def hidden(self) -> tuple[str, ...]:
        """The columns that no template may name."""
        if self.messages is not None:
            return (self.messages, *([] if self.tools is None else [self.tools]))
        own = self.references if self.own is None else self.own
        return (own, *([] if self.similarity is None else [self.similarity]))

    def read(self, where: str, columns: Mapping[str, Any], *, need: bool) -> dict[str, Any]:
        """What is right in a row, by the names of `Example`'s attributes.

        Args:
            where: file and line.
            columns: of the row.
            need: whether an answer must be there.

        Raises:
            DataError: it is not, or holds something else.
        """
        if self.label is not None:
            label = _label(where, self.label, columns, need)
            return {"label": label, "references": () if label is None else (label,)}
        if self.label_list is not None:
            return {"labels": _labels(where, self.label_list, self.separator, columns, need)}
        if self.number is not None:
            return {"number": _number(where, self.number, columns, need)}
        if self.choices is not None:
            named, choices = read_choices(where, self.choices, columns)
            right = _right(where, self.right, choices, named, columns, need)
            texts = tuple(choices[number] for number in right or ())
            return {"choices": choices, "right": right, "references": texts}
        if self.paired is not None:
            return _paired(where, self.paired, self.similarity, columns, need)
        if self.messages is not None:
            talk = conversation_of(
                where,
                self.messages,
                columns,
                tools=self.tools,
                measured=self.measured,
                answered=need,
            )
            return {"conversation": talk, "references": talk.references}
        given = columns.get(self.references)
        return {"references": () if given is None else _texts(where, self.references, given)}


def _label(where: str, name: str, columns: Mapping[str, Any], need: bool) -> str | None:
    value = columns.get(name)
    text = _as_label(value)
    if text is None and value is not None:
        raise DataError(
            f"{where}, field '{name}': expected a label, a text or a whole number, found "
            f"{show(value)}"
        )
    if text is None and need:
        raise DataError(missing(where, name, columns, "the label of this row"))
    if text == "" and need:
        raise DataError(f"{where}, field '{name}': expected a label, found ''")
    return text or None


def _labels(
    where: str, name: str, separator: str | None, columns: Mapping[str, Any], need: bool
) -> tuple[str, ...] | None:
    value = columns.get(name)
    if value is None:
        if need:
            raise DataError(missing(where, name, columns, "the labels of this row, perhaps none"))
        return None
    if isinstance(value, str) and separator is not None:
        value = value.split(separator) if value.strip() else []
    if not isinstance(value, list | tuple):
        expected = "a list of labels"
        if separator is None:
            expected += "; of a text say in task.data.separator what stands between its labels"
        else:
            expected += f", or a text with {separator!r} between them"
        raise DataError(f"{where}, field '{name}': expected {expected}, found {show(value)}")
    chosen: list[str] = []
    for item in value:
        text = _as_label(item)
        if not text:
            raise DataError(
                f"{where}, field '{name}': expected labels, each a text or a whole number, found "
                f"{show(item)} among them"
            )
        if text in chosen:
            raise DataError(f"{where}, field '{name}': the label {text!r} stands twice")
        chosen.append(text)
    return tuple(chosen)


def _number(where: str, name: str, columns: Mapping[str, Any], need: bool) -> float | None:
    value = columns.get(name)
    if value is None or (isinstance(value, str) and not value.strip() and not need):
        if need:
            raise DataError(missing(where, name, columns, "the number of this row"))
        return None
    odd = isinstance(value, bool) or (isinstance(value, str) and "_" in value)
    try:
        number = float("nan" if odd else value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not abs(number) <= LARGEST:
        raise DataError(
            f"{where}, field '{name}': expected a number, such as 3 or 0.25, found {show(value)}"
        )
    return number


def read_choices(
    where: str, name: str | tuple[str, ...], columns: Mapping[str, Any]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What a row's choices are called, if they are called anything, and their texts.

    Args:
        where: file and line.
        name: a column with a list of texts, or with `{"label": names, "text": texts}`, as data of
            the hub have them; or several columns, of which the last ones may be empty.
        columns: of the row.

    Raises:
        DataError: there are none, or one of them is no text.
    """
    if not isinstance(name, str):
        return (), _of_columns(where, name, columns)
    value = columns.get(name)
    if value is None:
        raise DataError(missing(where, name, columns, "a list of choices"))
    named: Any = ()
    if isinstance(value, Mapping) and "text" in value:
        value, named = value["text"], value.get("label") or ()
    if not isinstance(value, list | tuple) or not value:
        raise DataError(f"{where}, field '{name}': expected a list of choices, found {show(value)}")
    texts = tuple(_choice(where, name, number, item) for number, item in enumerate(value))
    names = tuple(map(str, named))
    if names and (len(names) != len(texts) or len(set(names)) < len(names)):
        raise DataError(
            f"{where}, field '{name}': expected a name of its own for each of {len(texts)} "
            f"choices, found {show(named)}"
        )
    return names, texts


def _of_columns(where: str, names: tuple[str, ...], columns: Mapping[str, Any]) -> tuple[str, ...]:
    for name in names[:2]:
        if name not in columns:
            raise DataError(missing(where, name, columns, "a choice"))
    values = [columns.get(name) for name in names]
    while values and values[-1] in (None, ""):
        values.pop()
    if not values:
        raise DataError(f"{where}, field '{names[0]}': expected a choice, found nothing")
    return tuple(
        _choice(where, name, None, value) for name, value in zip(names, values, strict=False)
    )


def _choice(where: str, name: str, number: int | None, value: Any) -> str:
    text = str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not text.strip():
        which = "" if number is None else f" as choice {number}"
        raise DataError(
            f"{where}, field '{name}': expected a text that is not empty{which}, found "
            f"{show(value)}"
        )
    return text


def _right(
    where: str,
    name: str,
    choices: tuple[str, ...],
    named: tuple[str, ...],
    columns: Mapping[str, Any],
    need: bool,
) -> tuple[int, ...] | None:
    value = columns.get(name)
    if value is None or (value == "" and not need):
        if need:
            raise DataError(missing(where, name, columns, "which of the choices is right"))
        return None
    given = value if isinstance(value, list | tuple) else [value]
    numbers = [_which(where, name, item, choices, named) for item in given]
    if len(set(numbers)) < len(numbers):
        raise DataError(f"{where}, field '{name}': a choice stands twice in {show(value)}")
    return tuple(sorted(numbers))


def _which(
    where: str, name: str, value: Any, choices: tuple[str, ...], named: tuple[str, ...]
) -> int:
    """The number of a choice that is told by its name, its number or its text."""
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else None
    meant: set[int] = set()
    if text is not None and named:
        meant = {named.index(text)} if text in named else set()
    elif text is not None:
        if text.strip().isdecimal() and int(text) < len(choices):
            meant.add(int(text))
        if isinstance(value, str) and text in choices:
            meant.add(choices.index(text))
    if len(meant) == 1:
        return meant.pop()
    place = f"{where}, field '{name}'"
    if meant:
        raise DataError(
            f"{place}: {show(value)} is a choice's number and another one's text; give the number "
            "as a number"
        )
    expected = f"one of {', '.join(named)}" if named else f"a number from 0 to {len(choices) - 1}"
    raise DataError(f"{place}: expected {expected}, or the text of a choice, found {show(value)}")


def _paired(
    where: str, name: str, similarity: str | None, columns: Mapping[str, Any], need: bool
) -> dict[str, Any]:
    value = columns.get(name)
    if value is None and need:
        raise DataError(missing(where, name, columns, "the text that belongs to this row's"))
    texts = None if value is None else _texts(where, name, value)
    if similarity is None:
        if need and not texts:
            raise DataError(f"{where}, field '{name}': expected a text, found an empty list")
        return {"paired": texts}
    if texts is not None and len(texts) != 1:
        raise DataError(
            f"{where}, field '{name}': expected one text, of which '{similarity}' says how alike "
            f"it is, found {len(texts)}"
        )
    return {"paired": texts, "number": _number(where, similarity, columns, need)}


def _as_label(value: Any) -> str | None:
    """A label as text; None for what is none."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value).strip() if isinstance(value, str | int) else None


def _texts(where: str, name: str, value: Any) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    for item in values:
        if not isinstance(item, str) or not item.strip():
            raise DataError(
                f"{where}, field '{name}': expected a text that is not empty, or a list of such "
                f"texts, found {show(item)}"
            )
    return tuple(values)
