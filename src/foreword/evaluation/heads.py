"""What a head says of every example of a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from foreword.readout import Told, read_together
from foreword.tasks import Example, linearise
from foreword.tuned import TunedModel
from foreword.understanding import Answered, HeadTask, Window, text_of


@dataclass(frozen=True, eq=False)
class Asking:
    """One example that is to be answered by a head or by label words.

    Attributes:
        model: reads it; models of several rows may differ, but share one backbone.
        task: how the example becomes rows, and what is read an answer.
        example: its labels need not be there.
    """

    model: TunedModel
    task: HeadTask
    example: Example


def tell(
    model: TunedModel,
    task: HeadTask,
    examples: Sequence[Example],
    *,
    batch_size: int = 32,
    advance: Callable[[int], None] = lambda _: None,
) -> tuple[list[Answered], int]:
    """One model's answers to examples, in their order, and how many of them were cut to fit; see
    `tell_rows`."""
    asking = [Asking(model, task, example) for example in examples]
    told = tell_rows(asking, batch_size=batch_size, advance=advance)
    return told, sum(one.truncated for one in told)


@torch.no_grad()
def tell_rows(
    asking: Sequence[Asking],
    *,
    batch_size: int = 32,
    advance: Callable[[int], None] = lambda _: None,
) -> list[Answered]:
    """The answer to each example, in their order.

    Batches are of similar lengths, and no answer depends on the others of its batch.

    Args:
        asking: the examples, each with its model and task.
        batch_size: rows read together.
        advance: called with the number of examples that are done.

    Raises:
        DataError: an example lacks what its task asks for, or is too long.
    """
    by_example = [
        one.task.windows(one.model.backbone, one.example, one.model.room, labelled=False)
        for one in asking
    ]
    rows: list[tuple[int, Window]] = [
        (number, window) for number, windows in enumerate(by_example) for window in windows
    ]
    order = sorted(range(len(rows)), key=lambda i: -rows[i][1].pair.length)
    read: list[dict[int, Tensor]] = [{} for _ in asking]
    answers: list[Answered | None] = [None] * len(asking)
    waiting = [len(windows) for windows in by_example]

    def answer(number: int) -> None:
        """Answer one of which all is read, and forget what was read: it may be a vocabulary."""
        said = [read[number][i] for i in sorted(read[number])]
        read[number].clear()
        one, windows = asking[number], by_example[number]
        told = one.task.told(one.model.backbone, one.example, windows, said)
        answers[number] = replace(told, truncated=any(window.cut for window in windows))

    for number, windows in enumerate(waiting):
        if not windows:
            answer(number)
    if nothing_to_read := waiting.count(0):
        advance(nothing_to_read)
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        for i, said in _read(asking, rows, batch):
            read[rows[i][0]][i] = said
            waiting[rows[i][0]] -= 1
        done = [number for number in {rows[i][0] for i in batch} if not waiting[number]]
        for number in done:
            answer(number)
        advance(len(done))
    told = [one for one in answers if one is not None]
    assert len(told) == len(asking), "every example is answered"
    return told


def _read(
    asking: Sequence[Asking], rows: Sequence[tuple[int, Window]], batch: Sequence[int]
) -> Iterator[tuple[int, Tensor]]:
    """What each row of a batch says, by its number."""
    by_model: dict[int, list[int]] = {}
    for i in batch:
        by_model.setdefault(id(asking[rows[i][0]].model), []).append(i)
    parts = []
    for members in by_model.values():
        model = asking[rows[members[0]][0]].model
        assert isinstance(model.readout, Told), "a text is decoded"
        layout = model.lay_out([rows[i][1].pair for i in members])
        parts.append((model.readout, model.call(layout)))
    backbone = asking[rows[batch[0]][0]].model.backbone
    for members, found in zip(by_model.values(), read_together(backbone, parts), strict=True):
        yield from zip(members, found, strict=True)


def asked(task: HeadTask, example: Example) -> str:
    """What an example asks, as text to show."""
    if example.words is not None:
        return " ".join(example.words)
    text = text_of(task)
    shown = ("question",) if text is None else text.slots
    return " | ".join(linearise(example.fields[name]) for name in shown if name in example.fields)
