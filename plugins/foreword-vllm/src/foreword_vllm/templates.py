"""A prompt's template: words with slots for fields, or messages of such texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Field = str | Mapping[str, Any]
"""A text, or a record, which is written as `name : X | type : Y` (Li & Liang 2021, section 5.1)."""
Message = dict[str, str]
"""`{"role": ..., "content": ...}`, as chat templates take it."""


class InputError(ValueError):
    """A request does not fit a template, or a template is damaged."""


@dataclass(frozen=True)
class Slot:
    """Where a field's text goes."""

    name: str


Pieces = tuple[str | Slot, ...]


@dataclass(frozen=True)
class Input:
    """How fields become an input.

    Attributes:
        texts: of each message its role and pieces; one text without a role where it is no chat.
    """

    texts: tuple[tuple[str | None, Pieces], ...]

    @classmethod
    def parse(cls, stated: Any) -> Input:
        """From a prompt's statement: a list of texts and slots, or of messages.

        Raises:
            InputError: it is neither.
        """
        if not isinstance(stated, list):
            raise InputError(f"input is {stated!r:.60}, expected a list")
        if stated and all(isinstance(one, dict) and "role" in one for one in stated):
            return cls(tuple((str(one["role"]), _pieces(one.get("content"))) for one in stated))
        return cls(((None, _pieces(stated)),))

    @property
    def is_chat(self) -> bool:
        """Whether the tokenizer's chat template renders it."""
        return self.texts[0][0] is not None

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields that it names, each once, in their order."""
        pieces = (piece for _, pieces in self.texts for piece in pieces)
        return tuple(dict.fromkeys(piece.name for piece in pieces if isinstance(piece, Slot)))

    def text(self, fields: Mapping[str, Field]) -> str:
        """The text of an input that is no chat.

        Raises:
            InputError: a field is missing, or there is none of its name.
        """
        self._check(fields)
        return _filled(self.texts[0][1], fields)

    def messages(self, fields: Mapping[str, Field]) -> list[Message]:
        """The messages of a chat.

        Raises:
            InputError: a field is missing, or there is none of its name.
        """
        self._check(fields)
        return [
            {"role": str(role), "content": _filled(pieces, fields)} for role, pieces in self.texts
        ]

    def only(self, text: str) -> dict[str, str]:
        """A text as the only field.

        Raises:
            InputError: there are several fields, or none.
        """
        names = self.fields
        if len(names) != 1:
            raise InputError(
                f"prompt: the input has the fields {', '.join(names) or 'none'}; give them by name "
                'in "fields" instead of "prompt"'
            )
        return {names[0]: text}

    def _check(self, fields: Mapping[str, Any]) -> None:
        wanted = set(self.fields)
        missing, unknown = sorted(wanted - set(fields)), sorted(set(fields) - wanted)
        if missing or unknown:
            what = f"'{missing[0]}' is missing" if missing else f"there is no '{unknown[0]:.60}'"
            raise InputError(f"fields: {what}; the input has {', '.join(sorted(wanted)) or 'none'}")
        for name, value in fields.items():
            if not isinstance(value, str) and not _is_record(value):
                raise InputError(f"fields: '{name}' is {value!r:.60}, expected a text or a record")


def _pieces(stated: Any) -> Pieces:
    if not isinstance(stated, Sequence) or isinstance(stated, str):
        raise InputError(f"input is {stated!r:.60}, expected a list of texts and fields")
    pieces: list[str | Slot] = []
    for one in stated:
        if isinstance(one, str):
            pieces.append(one)
        elif isinstance(one, dict) and isinstance(one.get("field"), str):
            pieces.append(Slot(one["field"]))
        else:
            raise InputError(f"input has {one!r:.60}, expected a text or a field")
    return tuple(pieces)


def _is_record(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(one, str) for one in value.values())


def _filled(pieces: Pieces, fields: Mapping[str, Field]) -> str:
    return "".join(_written(fields[one.name]) if isinstance(one, Slot) else one for one in pieces)


def _written(field: Field) -> str:
    if isinstance(field, str):
        return field
    return " | ".join(f"{name} : {value}" for name, value in field.items())
