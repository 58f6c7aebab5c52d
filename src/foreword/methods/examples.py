"""What a method may read of the training examples before anything is trained. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

FIXED, TEMPLATE, CONTENT, ANSWER, LABEL = range(5)
"""What a token is of: no text (a special token), the input's template, the content of one of its
fields, the answer's template, the label."""


@dataclass(frozen=True)
class Demonstration:
    """The row that is trained on for an example: its input, its answer, the end token.

    Attributes:
        leading: special tokens before it, such as a beginning token.
        tokens: the others.
        types: what each of those is of.
    """

    leading: tuple[int, ...]
    tokens: tuple[int, ...]
    types: tuple[int, ...]


@dataclass(frozen=True)
class InText:
    """Training examples that stand with their answers as text before every input.

    Attributes:
        shots: how many.
        separator: what stands after each of them.
    """

    shots: int
    separator: str


class TrainingExamples(Protocol):
    """The training examples of a run, as a method is shown them (`MethodOptions.filled`)."""

    def values(self, field: str) -> tuple[str, ...]:
        """What stands in a field of the examples that are trained on: each text once, sorted.

        Raises:
            UserError: an example has no such field, or no text there.
        """

    def document(self, text: str) -> Sequence[int]:
        """A text as tokens of the backbone, before it what stands before every input."""

    def demonstrations(self, count: int, field: str) -> Sequence[Demonstration]:
        """Some examples with their answers, as tokens of the backbone. The seed decides which;
        where there are labels, each has its turn.

        Args:
            count: how many.
            field: the field of the recipe that says so, for messages.

        Raises:
            UserError: there are fewer examples, one is too long, or the task has no answer that
                could stand in a text.
        """
