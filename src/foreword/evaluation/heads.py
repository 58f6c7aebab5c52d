"""What a head says of every example of a data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor

from foreword.tasks import Example, linearise
from foreword.tuned import TunedModel
from foreword.understanding import Answered, HeadTask, Window, text_of


def tell(
    model: TunedModel,
    task: HeadTask,
    examples: Sequence[Example],
    *,
    batch_size: int = 32,
    advance: Callable[[int], None] = lambda _: None,
) -> tuple[list[Answered], int]:
    """The answer to each example, in their order, and how many of them were cut to fit.

    Batches are of similar lengths, and no answer depends on the others of its batch.

    Args:
        model: with a head.
        task: how an example becomes rows, and what a head says an answer.
        examples: labels need not be there.
        batch_size: rows read together.
        advance: called with the number of examples that are done.

    Raises:
        DataError: an example lacks what the task asks for, or is too long.
    """
    by_example = [
        task.windows(model.backbone, example, model.room, labelled=False) for example in examples
    ]
    rows: list[tuple[int, Window]] = [
        (number, window) for number, windows in enumerate(by_example) for window in windows
    ]
    order = sorted(range(len(rows)), key=lambda i: -rows[i][1].pair.length)
    read: list[dict[int, Tensor]] = [{} for _ in examples]
    answers: list[Answered | None] = [None] * len(examples)
    waiting = [len(windows) for windows in by_example]

    def answer(number: int) -> None:
        """Answer one of which all is read, and forget what was read: it may be a vocabulary."""
        said = [read[number][i] for i in sorted(read[number])]
        read[number].clear()
        windows = by_example[number]
        told = task.told(model.backbone, examples[number], windows, said)
        answers[number] = replace(told, truncated=any(window.cut for window in windows))

    for number, windows in enumerate(waiting):
        if not windows:
            answer(number)
    if nothing_to_read := waiting.count(0):
        advance(nothing_to_read)
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        layout = model.lay_out([rows[i][1].pair for i in batch])
        for i, said in zip(batch, model.read(layout), strict=True):
            read[rows[i][0]][i] = said
            waiting[rows[i][0]] -= 1
        done = [number for number in {rows[i][0] for i in batch} if not waiting[number]]
        for number in done:
            answer(number)
        advance(len(done))
    told = [one for one in answers if one is not None]
    assert len(told) == len(examples), "every example is answered"
    return told, sum(one.truncated for one in told)


def asked(task: HeadTask, example: Example) -> str:
    """What an example asks, as text to show."""
    if example.words is not None:
        return " ".join(example.words)
    text = text_of(task)
    shown = ("question",) if text is None else text.slots
    return " | ".join(linearise(example.fields[name]) for name in shown if name in example.fields)
