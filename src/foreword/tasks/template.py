"""How an example becomes input: real text with `{field}` slots; `{{` and `}}` are braces."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from foreword.errors import TemplateError, did_you_mean
from foreword.tasks.example import Field, linearise


@dataclass(frozen=True)
class Template:
    """A parsed template: pieces of text, and slots by name.

    Attributes:
        source: the template as it was written.
        pieces: `(text, slot)` pairs; the slot is None after the last text.
    """

    source: str
    pieces: tuple[tuple[str, str | None], ...]

    @classmethod
    def parse(cls, source: str) -> Template:
        """Read a template.

        Raises:
            TemplateError: a brace without its partner or an empty slot, with its column.
        """
        pieces: list[tuple[str, str | None]] = []
        text, at = "", 0
        while at < len(source):
            two, one = source[at : at + 2], source[at]
            if two in ("{{", "}}"):
                text, at = text + one, at + 2
            elif one == "{":
                end = source.find("}", at)
                name = source[at + 1 : end].strip() if end >= 0 else ""
                if end < 0 or not name or "{" in name:
                    raise TemplateError(
                        f"template {source!r}, column {at + 1}: '{{' opens a slot that is not "
                        "closed by '}' after a field's name; write '{{' for a brace"
                    )
                pieces.append((text, name))
                text, at = "", end + 1
            elif one == "}":
                raise TemplateError(
                    f"template {source!r}, column {at + 1}: '}}' closes no slot; write '}}}}' for "
                    "a brace"
                )
            else:
                text, at = text + one, at + 1
        return cls(source, (*pieces, (text, None)))

    @property
    def slots(self) -> tuple[str, ...]:
        """The fields it names."""
        return tuple(slot for _, slot in self.pieces if slot is not None)

    def check(self, known: Iterable[str]) -> None:
        """Raise TemplateError if a slot is not among the known fields."""
        known = list(known)
        for slot in self.slots:
            if slot not in known:
                raise TemplateError(
                    f"template {self.source!r}: the data has no field '{slot}'"
                    f"{did_you_mean(slot, known)}"
                )

    def render(self, fields: Mapping[str, Field]) -> str:
        """The text, with every slot filled."""
        self.check(fields)
        return "".join(
            text if slot is None else text + linearise(fields[slot]) for text, slot in self.pieces
        )
