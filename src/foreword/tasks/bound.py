"""A task bound to the model that answers it, and requests that are answered together."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from foreword.backbone import Decoding
from foreword.backbone.layout import Pair
from foreword.backbone.stored_pairs import PairCodec
from foreword.backbone.text.encoding import together
from foreword.common.kept import key_of
from foreword.common.packed import Packed, fact, packed, write_in_shares, write_packed
from foreword.common.progress import Progress, Silent
from foreword.common.shares import parts, processes
from foreword.data import Example
from foreword.errors import DataError, UserError
from foreword.names import Together
from foreword.tasks.rows import Prediction, Row, by_name
from foreword.tuned import TunedModel

if TYPE_CHECKING:
    from foreword.tasks.base import Task

R = TypeVar("R")
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
        if not number:
            return rows
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
        self,
        examples: Sequence[Example],
        limit: int | None = None,
        *,
        decided: Any = None,
        progress: Progress | None = None,
    ) -> tuple[Sequence[Pair], int]:
        """Rows to train on, up to `limit`, and how many of them were cut to fit.

        Args:
            examples: where they are packed, the rows are, too.
            limit: most rows; None: all.
            decided: plain data that decide what rows become, beside the examples (see
                `decides`), where packed rows are kept for the next time.
            progress: told how many rows there are of packed examples.
        """
        if not isinstance(examples, Packed):
            rows = list(self._rows(examples, limit))
            return [row.pair for row in rows], sum(row.cut > 0 for row in rows)
        key = None
        if decided is not None and examples.key is not None:
            key = key_of("pairs", examples.key, limit, decided)
        progress = progress or Silent()
        shares = parts(len(examples), 1 if limit is not None else processes(len(examples)))

        def write_share(file: Path, number: int, advance: Callable[[int], None]) -> int:
            truncated = 0
            begin, end = shares[number]

            def pairs() -> Iterator[Pair]:
                nonlocal truncated
                for row in self._rows(examples[begin:end], limit):
                    truncated += row.cut > 0
                    yield row.pair

            write_packed(file, PairCodec(), pairs(), advance)
            return truncated

        def write(file: Path) -> dict[str, int]:
            progress.begin("tokenise", len(examples) if limit is None else limit)
            truncated = write_in_shares(file, len(shares), write_share, progress.advance)
            return {"truncated": sum(truncated)}

        made, about = packed(key, PairCodec(), write)
        return made, about["truncated"]

    def _rows(self, examples: Iterable[Example], limit: int | None) -> Iterator[Row]:
        """Rows to train on; the texts of many examples are tokenised together."""
        count = 0
        for rows in self._together(examples, self.rows):
            for row in rows:
                if limit is not None and count >= limit:
                    return
                count += 1
                yield row

    def _together(self, examples: Iterable[Example], make: Callable[[Example], R]) -> Iterator[R]:
        backbone = self.model.backbone
        if self.task.chats(backbone) is not None:  # rendering costs more than tokenising
            return map(make, examples)
        return together(backbone.tokens.tokenizer, examples, make)

    def decides(self) -> list[Any]:
        """Plain data of backbone and prompt that decide which tokens an example becomes, beside the
        task itself."""
        model, tokens = self.model, self.model.backbone.tokens
        chats = self.task.chats(model.backbone)
        dated = chats is not None and "strftime" in chats.source()
        return [
            [tokens.sha256, tokens.bos, tokens.encodes, tokens.virtual],
            model.backbone.model.config.to_json_string(),
            [type(model.placement).__qualname__, model.placement.length, model.room(0)],
            None if model.choice is None else [model.choice.field, model.choice.names],
            date.today().isoformat() if dated else None,
        ]

    def check(self, examples: Sequence[Example], how: Decoding, *, decided: Any = None) -> None:
        """Make sure that examples can be answered; see `Task.check`, and `pairs` for `decided`."""
        self.task.check(self.model, [], how)

        def check(example: Example) -> None:
            self.task.check(self.model, [example], how)

        def all_of_them() -> int:
            count = sum(1 for _ in self._together(examples, check))
            if self.model.choice is not None:
                for example in examples:
                    self._prompt_of(example)
            return count

        if decided is None:
            all_of_them()
        else:
            fact(examples, "checked", [decided, how.max_new_tokens], all_of_them)

    def answers(
        self,
        examples: Sequence[Example],
        how: Decoding | None = None,
        *,
        batch_size: Together = 32,
        seed: int | None = None,
        advance: Callable[[int], None] = lambda _: None,
    ) -> list[Prediction]:
        """The answers to examples, in their order.

        Args:
            examples: their references or labels are not looked at.
            how: decoding, where the answer is a text.
            batch_size: rows that are answered together; see `Together`.
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
    batch_size: Together = 32,
    advance: Callable[[int], None] = lambda _: None,
) -> list[Prediction]:
    """Answers of any tasks and models of one backbone, in the order of the requests.

    Args:
        requests: what is asked.
        batch_size: rows that are answered together (see `Together`); it changes no answer beyond
            ties and rounding.
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
