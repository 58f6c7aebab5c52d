"""A conversation: messages in their order; the assistant's turns are learned and measured."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from foreword.common.json_text import parse_json

Role = Literal["system", "user", "assistant", "tool"]
Measured = Literal["last", "each"]
"""Which turns of the assistant are measured."""


@dataclass(frozen=True)
class Turn:
    """One message.

    Attributes:
        role: who speaks.
        content: what is said.
        more: other keys of the message, as the text of a JSON object; "" where there are none.
        trained: whether a turn of the assistant is learned and measured.
    """

    role: Role
    content: str
    more: str = ""
    trained: bool = True

    @property
    def others(self) -> dict[str, Any]:
        """The other keys of the message."""
        fields: dict[str, Any] = parse_json(self.more) if self.more else {}
        return fields

    @property
    def text(self) -> str:
        """What is said, the calls of tools as text behind it."""
        calls = [
            f"<tool_call>\n{json.dumps(call['function'], ensure_ascii=False)}\n</tool_call>"
            for call in self.others.get("tool_calls", ())
        ]
        return "\n".join([*([self.content] if self.content else []), *calls])

    @property
    def answers(self) -> bool:
        """Whether it is a turn of the assistant that is learned and measured."""
        return self.role == "assistant" and self.trained


@dataclass(frozen=True)
class Conversation:
    """Messages in their order.

    Attributes:
        turns: at least one; user and assistant take turns.
        tools: what the assistant may call, as the text of a JSON list; "" where that is not said.
        measured: which turns of the assistant are measured.
    """

    turns: tuple[Turn, ...]
    tools: str = ""
    measured: Measured = "last"

    @property
    def answered(self) -> tuple[int, ...]:
        """The numbers of the assistant's turns that are learned and measured."""
        return tuple(number for number, turn in enumerate(self.turns) if turn.answers)

    @property
    def references(self) -> tuple[str, ...]:
        """The last answer; none where there is no answer."""
        return tuple(self.turns[number].text for number in self.answered[-1:])

    @property
    def asked(self) -> Conversation:
        """What comes before the last answer."""
        end = self.answered[-1] if self.answered else len(self.turns)
        return replace(self, turns=self.turns[:end])

    @property
    def open(self) -> Conversation:
        """What the assistant answers next: all before its last message, where nobody spoke after
        that one."""
        turns = self.turns
        while turns and turns[-1].role == "assistant":
            turns = turns[:-1]
        return replace(self, turns=turns)

    @property
    def line(self) -> str:
        """All of it as text, a message after the other."""
        return "\n".join(f"{turn.role}: {turn.text}" for turn in self.turns)

    @property
    def last_question(self) -> str:
        """What the user asked last, before the last answer."""
        questions = (turn.content for turn in reversed(self.asked.turns) if turn.role == "user")
        return next(questions, "")

    def each_measured(self) -> Iterator[Conversation]:
        """A conversation for every turn that is measured, which is its last one. Of what comes
        before it nothing is measured again."""
        ends = self.answered if self.measured == "each" else self.answered[-1:]
        for end in ends:
            turns = self.turns[: end + 1]
            if self.measured == "each":
                turns = (*(replace(turn, trained=False) for turn in turns[:-1]), turns[-1])
            yield replace(self, turns=turns)


def spoken_by_user(text: str) -> Conversation:
    """A conversation that a user begins."""
    return Conversation((Turn("user", text),))
