"""What label words would say of nothing, taken off what they say of something.

A backbone finds some words likelier than others whatever it reads. Zhao et al. 2021 ("Calibrate
Before Use", section 5) divide by the probabilities that an input without content gets; Hu et al.
2022 ("Knowledgeable Prompt-tuning", section 3.2) by the mean over real inputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from foreword.errors import DataError
from foreword.evaluation.heads import tell
from foreword.readout import Verbalizer
from foreword.tasks import Example
from foreword.tuned import TunedModel
from foreword.understanding import Cloze

CONTENT_FREE = ("N/A", "")
MOST_EXAMPLES = 256
LEAST = 1e-30


def calibrate(
    model: TunedModel, task: Cloze, examples: Sequence[Example] | None, *, batch_size: int = 32
) -> dict[str, float]:
    """Set the prior of a model's label words; the prior by label.

    Args:
        model: reads label words.
        task: how an example becomes input.
        examples: inputs to average over, 256 of them from beginning to end; inputs without content
            if None.
        batch_size: rows read together.
    """
    readout = model.readout
    assert isinstance(readout, Verbalizer)
    assert readout.prior is not None
    if examples is None:
        without = [Example(dict.fromkeys(task.text.slots, text)) for text in CONTENT_FREE]
        examples = [example for example in without if _is_read(model, task, example)]
    else:
        step = max(1, -(-len(examples) // MOST_EXAMPLES))
        examples = examples[::step]
    with torch.no_grad():
        readout.prior.zero_()
        told, _ = tell(model, task, examples, batch_size=batch_size)
        shares = torch.tensor(
            [[said.probabilities[label] for label in task.labels] for said in told],
            dtype=torch.float64,
        ).mean(0)
        readout.prior.copy_(shares.clamp(min=LEAST).log())
    return dict(zip(task.labels, shares.tolist(), strict=True))


def _is_read(model: TunedModel, task: Cloze, example: Example) -> bool:
    """Whether there is a token of it at all, which a pattern of fields alone may not have."""
    try:
        task.windows(model.backbone, example, model.room, labelled=False)
    except DataError:
        return False
    return True
