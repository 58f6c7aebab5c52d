"""How the learning rate goes over the steps of a training."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from foreword.recipe import TrainingSpec
from foreword.training.amount import warmup_steps


def schedule(optimizer: Optimizer, spec: TrainingSpec, total: int) -> LambdaLR:
    """Up to the rate in a line, then as the recipe says.

    The numbers are those of transformers' `get_scheduler`, whose module imports the whole of PEFT
    where that is installed.

    Args:
        optimizer: has the rate of each of its groups.
        spec: names the schedule and the warmup.
        total: steps.
    """
    warmup = warmup_steps(spec, total)
    after = max(1, total - warmup)

    def share(step: int) -> float:
        """What of the rate is left before a step, which is counted from 0."""
        if step < warmup:
            return step / max(1, warmup)
        if spec.schedule == "linear":
            return max(0.0, (total - step) / after)
        if spec.schedule == "cosine":
            return max(0.0, 0.5 * (1 + math.cos(math.pi * ((step - warmup) / after))))
        return 1.0

    return LambdaLR(optimizer, share)
