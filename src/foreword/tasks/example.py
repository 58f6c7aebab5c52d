"""One thing to say, with everything that is known about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Field = str | dict[str, str]
"""A field of an example: a text, or a record (names and values, in order)."""


@dataclass(frozen=True)
class Example:
    """One row of a data file, or several rows that ask the same.

    Attributes:
        fields: what templates may name.
        references: the acceptable answers; empty where there are none.
        group: the group it is reported under, if any.
        where: file and line it was read from, for messages.
    """

    fields: Mapping[str, Field]
    references: tuple[str, ...] = ()
    group: str | None = None
    where: str = ""

    @property
    def record(self) -> dict[str, str] | None:
        """The first field that is a record; its values are what slot coverage looks for."""
        return next((value for value in self.fields.values() if isinstance(value, dict)), None)


def linearise(field: Field) -> str:
    """A field as text: a record becomes `name : X | Type : Y` (Li & Liang 2021, section 5.1)."""
    if isinstance(field, str):
        return field
    return " | ".join(f"{name} : {value}" for name, value in field.items())
