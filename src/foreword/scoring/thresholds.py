"""From which probability a label is told, where a row may have any number of labels.

For F1 the best threshold is not a half (Lipton, Elkan & Narayanaswamy 2014, section 4), so it is
looked for on examples that are not trained on: every threshold that makes a difference is tried.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from foreword.scoring.statistics import Floats

USUAL = 0.5
Bools = npt.NDArray[np.bool_]


def best_threshold(probabilities: Sequence[float] | Floats, right: Sequence[bool] | Bools) -> float:
    """The threshold with the highest F1 of those who are told, being at least as probable as it.

    Where several are as good: a half, if it is among them, else the middle of those nearest to it.
    A half too where nothing is right.

    Args:
        probabilities: 0 to 1.
        right: whether each should be told.
    """
    shares = np.asarray(probabilities, dtype=np.float64)
    order = np.argsort(-shares, kind="stable")
    shares, hits = shares[order], np.asarray(right, dtype=np.float64)[order]
    if not hits.sum():
        return USUAL
    answered = np.arange(1, len(shares) + 1)
    f1 = 2 * hits.cumsum() / (answered + hits.sum())
    lows = np.append(shares[1:], 0.0)
    apart = shares > lows
    apart[-1] = True
    best = apart & np.isclose(f1, f1[apart].max(), rtol=0, atol=1e-12)
    ranges = zip(lows[best], shares[best], strict=True)
    candidates = [USUAL if low < USUAL <= high else (low + high) / 2 for low, high in ranges]
    return float(min(candidates, key=lambda threshold: abs(threshold - USUAL)))


def best_thresholds(probabilities: Floats, right: Bools) -> list[float]:
    """The best threshold of each label: `[examples, labels]` to `[labels]`. It makes macro F1 the
    highest."""
    columns = zip(probabilities.T, right.T, strict=True)
    return [best_threshold(shares, own) for shares, own in columns]


def shared_threshold(probabilities: Floats, right: Bools) -> float:
    """The one threshold of all labels with the highest micro F1."""
    return best_threshold(probabilities.ravel(), right.ravel())
