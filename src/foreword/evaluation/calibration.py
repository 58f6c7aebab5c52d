"""What label words would say of nothing, taken off what they say of something.

A backbone finds some words likelier than others whatever it reads. Zhao et al. 2021 ("Calibrate
Before Use", section 5) divide by the probabilities that an input without content gets; Hu et al.
2022 ("Knowledgeable Prompt-tuning", section 3.2) by the mean over real inputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from foreword.axes.readout import Verbalizer
from foreword.data import Example
from foreword.errors import DataError, UserError
from foreword.tasks import BoundTask

CONTENT_FREE = ("N/A", "")
MOST_EXAMPLES = 256
LEAST = 1e-30


def calibrate(
    task: BoundTask, examples: Sequence[Example] | None, *, batch_size: int = 32
) -> dict[str, float]:
    """Set the prior of a model's label words; the prior by label. Nothing where the task has none.

    Args:
        task: reads label words with its model.
        examples: inputs to average over, 256 of them from beginning to end; inputs without content
            if None.
        batch_size: rows read together.
    """
    if not task.task.calibrated:
        return {}
    readout, labels = task.model.readout, task.task.labels
    assert isinstance(readout, Verbalizer)
    assert readout.prior is not None
    if examples is None and task.model.choice is not None:
        raise UserError(
            "task.verbalizer.calibration: an input without content names none of the prompts that "
            f"a row chooses by '{task.model.choice.field}'; give `calibration: examples`"
        )
    if examples is None:
        empty = [Example(dict.fromkeys(task.task.fields, text)) for text in CONTENT_FREE]
        examples = [example for example in empty if _is_read(task, example)]
    else:
        step = max(1, -(-len(examples) // MOST_EXAMPLES))
        examples = examples[::step]
    with torch.no_grad():
        readout.prior.zero_()
        predictions = task.answers(examples, batch_size=batch_size)
        shares = torch.tensor(
            [[prediction.probabilities[label] for label in labels] for prediction in predictions],
            dtype=torch.float64,
        ).mean(0)
        readout.prior.copy_(shares.clamp(min=LEAST).log())
    return dict(zip(labels, shares.tolist(), strict=True))


def _is_read(task: BoundTask, example: Example) -> bool:
    """Whether an example has a token at all, which a pattern of fields alone may not have."""
    try:
        task.rows(example, labelled=False)
    except DataError:
        return False
    return True
