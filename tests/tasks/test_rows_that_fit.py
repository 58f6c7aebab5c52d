"""As many rows together as memory has room for: the answers of any other number, in that room."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from conftest import make_backbone
from foreword.axes.readout import Generation, SequenceHead
from foreword.backbone import Backbone, Decoding, memory
from foreword.data import Example
from foreword.methods import PrefixTuning
from foreword.methods.axes import Table
from foreword.names import MOST_TOGETHER
from foreword.recipe import TaskSpec
from foreword.tasks import BoundTask, answer_together, decoding, reading, task_of
from foreword.tasks.bound import Request
from foreword.tuned.compose import compose

TEXTS = [" ".join(["a quiet river near the old mill"] * (1 + n % 7)) for n in range(48)]
HOW = Decoding(max_new_tokens=12)


def bound(backbone: Backbone, kind: str) -> BoundTask:
    """A task with random virtual tokens: a label, or a text."""
    torch.manual_seed(0)
    method = PrefixTuning(name="prefix-tuning", length=4, reparameterization=Table(std=0.5))
    data = {"format": "jsonl", "train": "rows.jsonl"}
    if kind == "label":
        spec = TaskSpec.model_validate(
            {"data": {**data, "label": "label"}, "input": "{text}", "labels": ["no", "yes"]}
        )
        readout: Any = SequenceHead(backbone.hidden_width, 2)
    else:
        spec = TaskSpec.model_validate(
            {"data": data, "input": "{text} ->", "target": "{reference}"}
        )
        readout = Generation()
    return BoundTask(task_of(spec), compose(backbone, method, readout).eval())


class Seen:
    """The numbers of rows that go through at once, and the most bytes they hold."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: float) -> None:
        self.sizes: list[int] = []
        monkeypatch.setattr(memory, "free", lambda _: round(room / memory.SHARE))
        for module in (reading, decoding):
            monkeypatch.setattr(module, "rows_that_fit", self._fit)

    def _fit(self, *args: Any, **kwargs: Any) -> int:
        self.sizes.append(memory.rows_that_fit(*args, **kwargs))
        return self.sizes[-1]


def peak_of(task: BoundTask, size: Any) -> tuple[int, list[Any]]:
    """The most bytes that answering holds, and the answers."""
    requests = [Request(task, Example({"text": text}), HOW) for text in TEXTS]
    backbone = task.model.backbone
    known = [*memory.resident(backbone.model), *task.model.parameters()]
    with torch.no_grad(), memory.counting(torch.device("cpu"), known) as counted:
        answered = answer_together(requests, batch_size=size)
    return counted.peak, [one.answer for one in answered]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("kind", ["label", "text"])
def test_what_is_held_stays_within_the_room(
    kind: str, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = bound(make_backbone(family), kind)
    alone, expected = peak_of(task, 1)
    everything, _ = peak_of(task, len(TEXTS))
    room = (alone + everything) / 2
    seen = Seen(monkeypatch, room)
    held, answers = peak_of(task, "auto")
    assert answers == expected
    assert held <= room
    (size,) = seen.sizes
    assert 1 < size < len(TEXTS)


def test_no_more_than_there_are_and_one_where_there_is_no_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task = bound(make_backbone("llama"), "label")
    _, expected = peak_of(task, 7)
    for room, size in ((1e12, len(TEXTS)), (1, 1)):
        seen = Seen(monkeypatch, room)
        _, answers = peak_of(task, "auto")
        assert (answers, seen.sizes) == (expected, [size])


def test_one_where_two_run_out_of_memory() -> None:
    def run(rows: int) -> None:
        if rows > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    def wrong(_: int) -> None:
        raise RuntimeError("another mistake")

    cpu = torch.device("cpu")
    assert memory.rows_that_fit(run, [], cpu, most=8) == 1
    with pytest.raises(RuntimeError, match="another mistake"):
        memory.rows_that_fit(wrong, [], cpu, most=8)


def test_the_most_that_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free", lambda _: 10**15)
    fits = memory.rows_that_fit(torch.ones, [], torch.device("cpu"), most=MOST_TOGETHER)
    assert fits == MOST_TOGETHER
