"""A task bound to the model that answers it, and requests that are answered together."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from foreword.backbone import Decoding
from foreword.backbone.layout import Pair
from foreword.data import Example
from foreword.errors import DataError, UserError
from foreword.tasks.rows import Prediction, Row, by_name
from foreword.tuned import TunedModel

if TYPE_CHECKING:
    from foreword.tasks.base import Task

AnswerRequests = Callable[..., list[Prediction]]
"""`Task.answer_requests` of one kind."""


@dataclass(frozen=True, eq=False)
class BoundTask:
    """A task and the model that answers it.

    Attributes:
        task: what is asked.
        model: its backbone makes the tokens, its prompt and context say how many fit.
    """

    task: Task
    model: TunedModel

    def on(self, model: TunedModel) -> BoundTask:
        """The same task, answered by another model."""
        return replace(self, model=model)

    def without_prompt(self) -> BoundTask:
        """The same task, answered by the backbone alone, with a copy of the readout."""
        bare = self.model.bare()
        bare.readout = copy.deepcopy(bare.readout)
        return BoundTask(self.task.without_soft(), bare)

    @property
    def longest_input(self) -> int | None:
        """Most tokens of a row; None: any number."""
        limits = (self.model.room(0), self.task.longest_input)
        return min((limit for limit in limits if limit is not None), default=None)

    def rows(self, example: Example, *, labelled: bool = True, reserve: int = 0) -> list[Row]:
        """An example as rows of tokens, with the prompt that it names; see `Task.rows`."""
        rows = self.task.rows(self.model, example, labelled=labelled, reserve=reserve)
        number = self._prompt_of(example)
        return [replace(row, pair=replace(row.pair, prompt=number)) for row in rows]

    def rows_of_tokens(self, tokens: Sequence[int], where: str) -> list[Row]:
        """Token ids as rows, read as they are, without the template.

        Args:
            tokens: ids of the backbone's vocabulary.
            where: what messages call them.

        Raises:
            UserError: the task reads texts alone, or needs fields beside the text.
            DataError: they are too many.
        """
        if self.model.choice is not None or self.task.soft:
            raise by_name(where, self.fields)
        if self.longest_input is not None and len(tokens) > self.longest_input:
            raise DataError(
                f"{where}: has {len(tokens)} tokens, but at most {self.longest_input} are read; "
                "shorten it"
            )
        try:
            return self.task.rows_of_tokens(self.model, tokens)
        except UserError as error:
            raise type(error)(f"{where}: {error}") from error

    def _prompt_of(self, example: Example) -> int:
        """The number of the prompt that an example takes; DataError where it names none of
        several."""
        choice = self.model.choice
        return 0 if choice is None else choice.number(example.fields, example.where)

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of an example that are read."""
        choice = self.model.choice
        return self.task.fields if choice is None else (*self.task.fields, choice.field)

    def example(self, given: str | Mapping[str, Any], where: str = "") -> Example:
        """An input as an example; see `Task.example`.

        Raises:
            DataError: it lacks what the task asks for, or names no prompt where there are several.
        """
        if self.model.choice is not None and isinstance(given, str):
            raise by_name(where, self.fields)
        example = self.task.example(given, where)
        self._prompt_of(example)
        return example

    def pairs(
        self, examples: Sequence[Example], limit: int | None = None
    ) -> tuple[list[Pair], int]:
        """Rows to train on, up to `limit`, and how many of them were cut to fit."""
        pairs: list[Pair] = []
        truncated = 0
        for example in examples:
            for row in self.rows(example):
                if limit is not None and len(pairs) >= limit:
                    return pairs, truncated
                pairs.append(row.pair)
                truncated += row.cut > 0
        return pairs, truncated

    def check(self, examples: Sequence[Example], how: Decoding) -> None:
        """Make sure that examples can be answered; see `Task.check`."""
        self.task.check(self.model, examples, how)
        for example in examples:
            self._prompt_of(example)

    def answers(
        self,
        examples: Sequence[Example],
        how: Decoding | None = None,
        *,
        batch_size: int = 32,
        seed: int | None = None,
        advance: Callable[[int], None] = lambda _: None,
    ) -> list[Prediction]:
        """The answers to examples, in their order.

        Args:
            examples: their references or labels are not looked at.
            how: decoding, where the answer is a text.
            batch_size: rows that are answered together.
            seed: of the first example's draws, where texts are drawn; the next ones have the next
                numbers. From torch's random state if not given.
            advance: called with the number of examples that are done.

        Raises:
            UserError: an example lacks what the task asks for, or is too long.
        """
        requests = [
            Request(self, example, how or Decoding(), None if seed is None else seed + number)
            for number, example in enumerate(examples)
        ]
        return answer_together(requests, batch_size=batch_size, advance=advance)


@dataclass(frozen=True, eq=False)
class Request:
    """One example that is to be answered.

    Attributes:
        task: what is asked, and of which model; the models of several requests share one backbone.
        example: its references or label are not looked at.
        how: decoding, where the answer is a text.
        seed: of its draws; from torch's random state if not given.
        made: the rows that are read, where they are made already.
    """

    task: BoundTask
    example: Example
    how: Decoding = field(default_factory=Decoding)
    seed: int | None = None
    made: Sequence[Row] | None = None

    def rows(self) -> list[Row]:
        """The rows that are read, where the answer is read.

        Raises:
            UserError: the example lacks what its task asks for, or is too long.
        """
        if self.made is not None:
            return list(self.made)
        return self.task.rows(self.example, labelled=False)


def answer_together(
    requests: Sequence[Request],
    *,
    batch_size: int = 32,
    advance: Callable[[int], None] = lambda _: None,
) -> list[Prediction]:
    """Answers of any tasks and models of one backbone, in the order of the requests.

    Args:
        requests: what is asked.
        batch_size: rows that are answered together; it changes no answer beyond ties and rounding.
        advance: called with the number of requests that are done.

    Raises:
        UserError: an example lacks what its task asks for, or is too long.
    """
    predictions: dict[int, Prediction] = {}
    alike: dict[AnswerRequests, list[int]] = {}
    for number, request in enumerate(requests):
        alike.setdefault(request.task.task.answer_requests, []).append(number)
    for answer_requests, members in alike.items():
        answered = answer_requests(
            [requests[number] for number in members], batch_size=batch_size, advance=advance
        )
        predictions.update(zip(members, answered, strict=True))
    return [predictions[number] for number in range(len(requests))]
