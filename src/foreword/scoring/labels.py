"""Accuracy, F1 and Matthews' correlation of labels, 0 to 1 (-1 to 1), as scikit-learn has them.

All come from three counts of each label, so that they can be resampled like every measure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from foreword.scoring.statistics import Floats, Statistics


def accuracy(gold: Sequence[str], predicted: Sequence[str]) -> Statistics:
    """Share of labels that are right."""
    return Statistics.mean([a == b for a, b in zip(gold, predicted, strict=True)])


def f1(gold: Sequence[str], predicted: Sequence[str], positive: str) -> Statistics:
    """F1 of one label against all others; 0 where it neither stands nor is said."""
    counts = _counts(gold, predicted, [positive])
    return Statistics(counts, lambda sums: _f1(_by_label(sums))[..., 0])


def macro_f1(gold: Sequence[str], predicted: Sequence[str]) -> Statistics:
    """Mean of the F1 of every label that stands or is said."""
    counts = _counts(gold, predicted, sorted({*gold, *predicted}))
    return Statistics(counts, lambda sums: _f1(_by_label(sums)).mean(axis=-1))


def matthews(gold: Sequence[str], predicted: Sequence[str]) -> Statistics:
    """Matthews' correlation, for more than two labels Gorodkin's R_K (2004); 0 where either side
    has one label only."""
    counts = _counts(gold, predicted, sorted({*gold, *predicted}))
    return Statistics(np.column_stack([counts, np.ones(len(counts))]), _matthews)


Sets = Sequence[Sequence[str]]
"""The labels of each example, where it may have any number of them."""
Average = Literal["micro", "macro", "samples"]


def several_f1(gold: Sets, predicted: Sets, labels: Sequence[str], average: Average) -> Statistics:
    """F1 where an example may have any number of labels.

    micro: of all labels of all examples together; macro: the mean of each label's; samples: the
    mean of each example's. 0 where there is nothing to divide by.

    Args:
        gold: what is right.
        predicted: what is told.
        labels: all of them, which macro F1 is a mean over.
        average: which of the three.
    """
    right, own, answered = np.moveaxis(_sets(gold, predicted, labels), 1, 0)
    if average == "samples":
        return Statistics.mean(ratio(2 * (right * own).sum(1), own.sum(1) + answered.sum(1)))
    counts = np.concatenate([right, own, answered], axis=-1)
    if average == "macro":
        return Statistics(counts, lambda sums: _f1(_by_label(sums)).mean(axis=-1))
    return Statistics(counts, lambda sums: _f1(_by_label(sums).sum(axis=-1, keepdims=True))[..., 0])


def subset_accuracy(gold: Sets, predicted: Sets) -> Statistics:
    """Share of examples whose labels are all right, and no other."""
    return Statistics.mean([set(a) == set(b) for a, b in zip(gold, predicted, strict=True)])


def _sets(gold: Sets, predicted: Sets, labels: Sequence[str]) -> Floats:
    """`[examples, 3, labels]`: whether each label is right, is a gold one, is said."""
    own = np.array([[label in one for label in labels] for one in gold], dtype=np.float64)
    answered = np.array([[label in one for label in labels] for one in predicted], dtype=np.float64)
    return np.stack([own * answered, own, answered], axis=1)


def _matthews(sums: Floats) -> Floats:
    right, gold, predicted = np.moveaxis(_by_label(sums[..., :-1]), -2, 0)
    total = sums[..., -1]
    shared = right.sum(axis=-1) * total - (gold * predicted).sum(axis=-1)
    spread = (total**2 - (gold**2).sum(axis=-1)) * (total**2 - (predicted**2).sum(axis=-1))
    return ratio(shared, np.sqrt(spread))


def _counts(gold: Sequence[str], predicted: Sequence[str], labels: Sequence[str]) -> Floats:
    """`[examples, 3 * labels]`: whether each label is right, is the gold one, is said."""
    g = np.array([[label == one for label in labels] for one in gold], dtype=np.float64)
    f = np.array([[label == one for label in labels] for one in predicted], dtype=np.float64)
    return np.concatenate([g * f, g, f], axis=-1)


def _by_label(sums: Floats) -> Floats:
    """`[..., 3 * labels]` to `[..., 3, labels]`."""
    return sums.reshape(*sums.shape[:-1], 3, -1)


def _f1(sums: Floats) -> Floats:
    right, gold, predicted = np.moveaxis(sums, -2, 0)
    return ratio(2 * right, gold + predicted)


def ratio(top: Floats, bottom: Floats) -> Floats:
    """0 where there is nothing to divide by."""
    return np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)
