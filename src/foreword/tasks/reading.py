"""Tasks whose answer is read off the backbone by a head or by label words."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from foreword.axes.readout import Predictor, read_together
from foreword.backbone import Backbone
from foreword.data import Example
from foreword.errors import DataError
from foreword.tasks.base import Request, Task
from foreword.tasks.rows import Prediction, Row


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
        requests: Sequence[Request], *, batch_size: int, advance: Callable[[int], None]
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


@torch.no_grad()
def _read_requests(
    requests: Sequence[Request], batch_size: int, advance: Callable[[int], None]
) -> list[Prediction]:
    by_request = [request.task.rows(request.example, labelled=False) for request in requests]
    rows = [(number, row) for number, own in enumerate(by_request) for row in own]
    order = sorted(range(len(rows)), key=lambda i: -rows[i][1].pair.length)
    outputs: list[dict[int, Tensor]] = [{} for _ in requests]
    predictions: dict[int, Prediction] = {}
    unread = [len(own) for own in by_request]

    def answer(number: int) -> None:
        """Answer a request of which all rows are read, and forget their outputs: each may be as
        long as a vocabulary."""
        in_order = [outputs[number][i] for i in sorted(outputs[number])]
        outputs[number].clear()
        request, own = requests[number], by_request[number]
        task, example = request.task.task, request.example
        assert isinstance(task, ReadTask), "requests of this kind alone come here"
        prediction = task.prediction(request.task.model.backbone, example, own, in_order)
        predictions[number] = replace(
            prediction,
            truncated=any(row.cut > 0 for row in own),
            input=task.input_line(example),
        )

    for number, count in enumerate(unread):
        if not count:
            answer(number)
    if nothing_to_read := unread.count(0):
        advance(nothing_to_read)
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        for i, output in _read_batch(requests, rows, batch):
            outputs[rows[i][0]][i] = output
            unread[rows[i][0]] -= 1
        done = [number for number in {rows[i][0] for i in batch} if not unread[number]]
        for number in done:
            answer(number)
        advance(len(done))
    return [predictions[number] for number in range(len(requests))]


def _read_batch(
    requests: Sequence[Request], rows: Sequence[tuple[int, Row]], batch: Sequence[int]
) -> Iterator[tuple[int, Tensor]]:
    """The output for each row of a batch, with the row's number."""
    by_model: dict[int, list[int]] = {}
    for i in batch:
        by_model.setdefault(id(requests[rows[i][0]].task.model), []).append(i)
    parts = []
    for members in by_model.values():
        model = requests[rows[members[0]][0]].task.model
        assert isinstance(model.readout, Predictor), "a text is decoded"
        layout = model.lay_out([rows[i][1].pair for i in members])
        parts.append((model.readout, model.call(layout)))
    backbone = requests[rows[batch[0]][0]].task.model.backbone
    for members, outputs in zip(by_model.values(), read_together(backbone, parts), strict=True):
        yield from zip(members, outputs, strict=True)
