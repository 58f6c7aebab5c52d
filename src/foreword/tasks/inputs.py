"""What a task reads of an example: its fields, through the templates of its input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Self

from foreword.backbone import Backbone
from foreword.data import Example, linearise
from foreword.data.readers import fields_of
from foreword.errors import DataError
from foreword.tasks.rows import by_name
from foreword.tasks.text import Templates
from foreword.templates import Chat


class Inputs:
    """The part of a task that reads examples; a kind of task without templates has its own.

    Attributes:
        text: the templates of the input; None where words, or a question and its context, are read.
    """

    text: Templates | None

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of an example that are read."""
        return () if self.text is None else self.text.slots

    @property
    def soft(self) -> int:
        """How many virtual tokens the input has slots for."""
        return 0 if self.text is None else self.text.soft

    @property
    def longest_input(self) -> int | None:
        """Most tokens of a row; None: what the context holds."""
        return None if self.text is None else self.text.max_tokens

    @property
    def cut_fields(self) -> tuple[str, ...]:
        """The fields that give way where an example is too long, the first first."""
        return () if self.text is None else self.text.cuts

    def without_soft(self) -> Self:
        """The same task for a backbone without a prompt: its input has no slots for one."""
        if self.text is None:
            return self
        return replace(self, text=self.text.without_soft())  # type: ignore[type-var]

    def example(self, given: str | Mapping[str, Any], where: str = "") -> Example:
        """An input as an example: a plain text stands for the templates' only slot.

        Raises:
            DataError: the input lacks what the task asks for.
        """
        if not isinstance(given, str):
            for name in self.fields:
                if name in given and given[name] is None:
                    raise DataError(f"{where}, field '{name}': is null; expected a text")
            return Example(fields_of(where, given), where=where)
        if len(self.fields) != 1:
            raise by_name(where, self.fields)
        return Example({self.fields[0]: given}, where=where)

    def input_line(self, example: Example) -> str:
        """What an example asks, in a line."""
        return " | ".join(
            linearise(example.fields[name]) for name in self.fields if name in example.fields
        )

    def rendered(self, backbone: Backbone, example: Example) -> str:
        """What a backbone reads of an example, as text with its slots visible."""
        assert self.text is not None
        if isinstance(self.text.input, Chat):
            return self.text.chats(backbone.tokens).begun(self.text.input.render(example.fields))
        return "\n".join(template.render(example.fields) for template in self.text.templates)
