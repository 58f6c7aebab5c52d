"""An input as messages: the tokenizer's chat template renders them, and the answer is a turn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from foreword.data.example import Field
from foreword.errors import TemplateError
from foreword.templates.template import Template, excerpt

Message = dict[str, str]
"""`{"role": ..., "content": ...}`, as transformers' chat templates take it."""


@dataclass(frozen=True)
class Chat:
    """Messages whose contents are templates; the assistant's turn that follows is the target.

    Attributes:
        messages: role and content of each.
    """

    messages: tuple[tuple[str, Template], ...]

    @classmethod
    def parse(cls, messages: Sequence[Mapping[str, str]]) -> Chat:
        """Read messages.

        Raises:
            TemplateError: a content does not parse or has a slot that is no field, or the last turn
                is the assistant's.
        """
        if not messages or messages[-1]["role"] == "assistant":
            raise TemplateError(
                "task.input: messages must end before the assistant's turn, which is the target"
            )
        parsed = tuple((m["role"], Template.parse(m["content"])) for m in messages)
        for _, content in parsed:
            if not content.plain:
                raise TemplateError(
                    f"template {excerpt(content.source)}: {{soft}} and {{mask}} have no place in "
                    "messages, whose tokens the chat template sets; give task.input as one text"
                )
        return cls(parsed)

    @property
    def source(self) -> list[Message]:
        """The messages as they were written."""
        return [{"role": role, "content": content.source} for role, content in self.messages]

    @property
    def slots(self) -> tuple[str, ...]:
        """The fields it names."""
        return tuple(slot for _, content in self.messages for slot in content.slots)

    def check(self, known: Iterable[str]) -> None:
        """Raise TemplateError if a slot is not among the known fields."""
        known = list(known)
        for _, content in self.messages:
            content.check(known)

    def render(self, fields: Mapping[str, Field]) -> list[Message]:
        """The messages, with every slot filled."""
        return [
            {"role": role, "content": content.render(fields)} for role, content in self.messages
        ]


def fields_asked(
    input: str | list[dict[str, str]], second: str | None, target: str
) -> tuple[str, ...]:
    """The fields that a task's templates name, each once; `reference` is none.

    Raises:
        TemplateError: a template does not parse.
    """
    others = (Template.parse(text).slots for text in (second, target) if text is not None)
    named = (*parse_input(input).slots, *(slot for slots in others for slot in slots))
    return tuple(dict.fromkeys(name for name in named if name != "reference"))


def parse_input(written: str | Sequence[Mapping[str, str]]) -> Template | Chat:
    """A recipe's `task.input`: a text with slots, or messages of such texts."""
    return Template.parse(written) if isinstance(written, str) else Chat.parse(written)
