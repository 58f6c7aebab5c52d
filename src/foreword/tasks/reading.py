"""Tasks whose answer is read off the backbone by a head or by label words."""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from foreword.axes.readout import Predictor, read_together
from foreword.backbone import Backbone
from foreword.backbone.leaving_out import doing
from foreword.backbone.memory import resident, rows_that_fit
from foreword.data import Example
from foreword.errors import DataError
from foreword.names import MOST_TOGETHER, Together
from foreword.tasks.base import Task
from foreword.tasks.bound import Request
from foreword.tasks.rows import Prediction, Row

SHARED = 32
"""Tokens that rows of one beginning have in common."""


class ReadTask(Task):
    """A task that a readout answers in forward passes, without writing."""

    _unknown_label: ClassVar[str] = "name every label in task.labels"

    @abstractmethod
    def readout(self, backbone: Backbone) -> Predictor:
        """A new readout for a backbone.

        Raises:
            UserError: the backbone cannot answer this task.
        """

    @abstractmethod
    def prediction(
        self, backbone: Backbone, example: Example, rows: Sequence[Row], outputs: Sequence[Tensor]
    ) -> Prediction:
        """The answer to an example, from what the readout gave for each of its rows."""

    @staticmethod
    def answer_requests(
        requests: Sequence[Request], *, batch_size: Together, advance: Callable[[int], None]
    ) -> list[Prediction]:
        """Read the answers in batches of similar lengths; no answer depends on the others of its
        batch."""
        return _read_requests(requests, batch_size, advance)

    def label_number(self, example: Example, label: str | None) -> int:
        """The number of a label.

        Raises:
            DataError: the example has none, or one that the task does not know.
        """
        if label not in self.labels:
            raise DataError(
                f"{example.where}: the label {label!r} is none of {', '.join(self.labels)}; "
                f"{self._unknown_label}"
            )
        return self.labels.index(label)

    def read_at(self, backbone: Backbone, row: Row) -> tuple[list[str], list[str]]:
        """The marked tokens, or where the next one is read; and the labels there."""
        tokens = backbone.tokens.names(row.pair.source)
        marked = [tokens[mark] if mark >= 0 else "<soft1>" for mark in row.pair.marks]
        if not marked:
            marked = tokens[-1:] if backbone.geometry.kind == "decoder" else ["<answer>"]
        return marked, [self.labels[int(label)] for label in row.pair.labels]


def _read_requests(
    requests: Sequence[Request], batch_size: Together, advance: Callable[[int], None]
) -> list[Prediction]:
    reader = Reader()
    for number, request in enumerate(requests):
        reader.add(number, request)
    reader.sort()
    size = reader.most_together() if batch_size == "auto" else batch_size
    predictions: dict[int, Prediction] = {}
    while len(predictions) < len(requests):
        done = reader.read(size)
        predictions.update((one.number, one.prediction) for one in done)
        advance(len(done))
    return [predictions[number] for number in range(len(requests))]


@dataclass(frozen=True)
class Answered:
    """A request whose rows are all read.

    Attributes:
        number: the request's.
        prediction: its answer.
    """

    number: int
    prediction: Prediction


@dataclass(eq=False)
class _Open:
    """A request that has rows to be read.

    Attributes:
        number: the request's.
        request: what is asked.
        rows: of it.
        outputs: what its readout gave for those that are read, by their numbers.
    """

    number: int
    request: Request
    rows: list[Row]
    outputs: dict[int, Tensor] = field(default_factory=dict)

    def answered(self) -> Answered:
        """The answer, of all rows."""
        task, example = self.request.task.task, self.request.example
        assert isinstance(task, ReadTask), "requests of this kind alone come here"
        in_order = [self.outputs[i] for i in sorted(self.outputs)]
        backbone = self.request.task.model.backbone
        prediction = task.prediction(backbone, example, self.rows, in_order)
        cut = any(row.cut > 0 for row in self.rows)
        return Answered(
            self.number, replace(prediction, truncated=cut, input=task.input_line(example))
        )


class Reader:
    """Requests of one backbone that are read together, some rows at a time. No answer depends on
    what else is read."""

    def __init__(self) -> None:
        self._open: dict[int, _Open] = {}
        self._waiting: deque[tuple[_Open, int]] = deque()

    @property
    def waiting(self) -> int:
        """Requests that are not answered."""
        return len(self._open)

    def add(self, number: int, request: Request, rows: list[Row] | None = None) -> None:
        """Take a request, whose rows come after those that are here.

        Args:
            number: by which it is known outside.
            request: what is asked.
            rows: of its example, where they are made already.

        Raises:
            UserError: its example lacks what its task asks for, or is too long.
        """
        one = _Open(number, request, request.rows() if rows is None else rows)
        self._open[number] = one
        self._waiting.extend((one, row) for row in range(len(one.rows)))

    def sort(self) -> None:
        """Put long rows first, since a batch is as wide as its longest; those that begin alike
        stand together, since that is read once."""
        longest: dict[tuple[int, ...], int] = {}
        for at in self._waiting:
            beginning = _beginning(at)
            longest[beginning] = max(longest.get(beginning, 0), _length(at))

        def place(at: tuple[_Open, int]) -> tuple[int, tuple[int, ...], int]:
            beginning = _beginning(at)
            return -longest[beginning], beginning, -_length(at)

        self._waiting = deque(sorted(self._waiting, key=place))

    @torch.no_grad()
    def most_together(self) -> int:
        """As many of the sorted rows as memory has room for: the longest one is read for that."""
        if not self._waiting:
            return 1
        longest = self._waiting[0]
        model = longest[0].request.task.model
        with doing(["beginnings"]):  # rows that are alike would be read once
            return rows_that_fit(
                lambda rows: list(_outputs([longest] * rows)),
                [*resident(model.backbone.model), *model.parameters()],
                model.backbone.device,
                most=min(MOST_TOGETHER, len(self._waiting)),
            )

    def drop(self, number: int) -> None:
        """Forget a request; nothing if it is answered."""
        if self._open.pop(number, None) is not None:
            self._waiting = deque(at for at in self._waiting if at[0].number != number)

    def next(self, rows: int, tokens: int | None = None) -> list[tuple[_Open, int]]:
        """The rows that are read next, which wait no more: at most so many, of at most so many
        tokens together, but one in any case."""
        batch: list[tuple[_Open, int]] = []
        left = tokens
        while self._waiting and len(batch) < rows:
            length = _length(self._waiting[0])
            if left is not None and batch and length > left:
                break
            left = None if left is None else left - length
            batch.append(self._waiting.popleft())
        return batch

    def read(self, rows: int, tokens: int | None = None) -> list[Answered]:
        """Read the next rows; see `next`.

        Returns:
            The requests that are answered by that.
        """
        return self.read_batch(self.next(rows, tokens))

    @torch.no_grad()
    def read_batch(self, batch: Sequence[tuple[_Open, int]]) -> list[Answered]:
        """Read some rows that `next` gave.

        Returns:
            The requests that are answered by that, and those that have no rows.
        """
        for (one, row), output in _outputs(batch):
            one.outputs[row] = output
        read = {one.number for one, _ in batch}
        done = [
            one
            for one in self._open.values()
            if (one.number in read or not one.rows) and len(one.outputs) == len(one.rows)
        ]
        answered = [one.answered() for one in done]
        for one in done:
            del self._open[one.number]
        return answered


def _length(at: tuple[_Open, int]) -> int:
    return at[0].rows[at[1]].pair.length


def _beginning(at: tuple[_Open, int]) -> tuple[int, ...]:
    return tuple(at[0].rows[at[1]].pair.source[:SHARED])


def _outputs(
    batch: Sequence[tuple[_Open, int]],
) -> Iterator[tuple[tuple[_Open, int], Tensor]]:
    """What each row's readout gives for it."""
    if not batch:
        return
    by_model: dict[int, list[tuple[_Open, int]]] = {}
    for at in batch:
        by_model.setdefault(id(at[0].request.task.model), []).append(at)
    parts = []
    for members in by_model.values():
        model = members[0][0].request.task.model
        assert isinstance(model.readout, Predictor), "a text is decoded"
        layout = model.lay_out([one.rows[row].pair for one, row in members])
        parts.append((model.readout, model.call(layout)))
    backbone = batch[0][0].request.task.model.backbone
    for members, outputs in zip(by_model.values(), read_together(backbone, parts), strict=True):
        yield from zip(members, outputs, strict=True)
