"""What windows of a long text say of it together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from foreword.recipe import WindowPool

LEAST = 1e-15
"""A probability of nothing counts as this much, and one of everything as 1 less this much."""


def of_one_label(shares: Sequence[Tensor], pool: WindowPool | None) -> Tensor:
    """The probabilities of labels of which one is right.

    The mean of the logarithms is what a product of the windows' opinions says, each counted as one
    over their number; the highest probabilities are divided by their sum.

    Args:
        shares: what each window gives each label, `[labels]`.
        pool: how they are told together.
    """
    if len(shares) == 1:
        return shares[0]
    together = torch.stack(list(shares)).double()
    if pool == "max":
        highest = together.amax(0)
        return highest / highest.sum()
    return together.clamp(min=LEAST).log().mean(0).softmax(0)


def of_several_labels(shares: Sequence[Tensor], pool: WindowPool | None) -> Tensor:
    """The same of labels each of which is right or not: by the mean of the log-odds, or where the
    label is the likeliest."""
    if len(shares) == 1:
        return shares[0]
    together = torch.stack(list(shares)).double()
    return together.amax(0) if pool == "max" else together.logit(LEAST).mean(0).sigmoid()
