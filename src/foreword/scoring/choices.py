"""How well a row's own choices are chosen among, 0 to 1."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from foreword.scoring import squad
from foreword.scoring.labels import ratio
from foreword.scoring.statistics import Statistics

Numbers = Sequence[Sequence[int]]
"""Of each row the numbers of some choices."""


def accuracy(right: Numbers, chosen: Numbers, *, several: bool = False) -> Statistics:
    """Share of rows whose choice is right; where several may be right, of those whose choices are
    all right, and no other (MultiRC's exact match, Khashabi et al. 2018)."""
    pairs = zip(right, chosen, strict=True)
    if several:
        return Statistics.mean([set(a) == set(b) for a, b in pairs])
    return Statistics.mean([set(b) <= set(a) for a, b in pairs])


def likeliest(
    right: Numbers,
    log_likelihoods: Sequence[Sequence[float]],
    divisors: Sequence[Sequence[float]] | None = None,
) -> Statistics:
    """Share of rows whose likeliest choice is right: lm-evaluation-harness's `acc`, or with the
    lengths of the choices in characters its `acc_norm`. Of equal ones the first counts."""
    chosen = []
    for number, logs in enumerate(log_likelihoods):
        scores = np.asarray(logs) / (1.0 if divisors is None else np.asarray(divisors[number]))
        chosen.append([int(np.argmax(scores))])
    return accuracy(right, chosen)


def f1(right: Numbers, chosen: Numbers) -> Statistics:
    """F1 of what is said of each choice, over the choices of all rows (MultiRC's F1a)."""
    rows = [
        [len(set(a) & set(b)), len(set(a)) + len(set(b))]
        for a, b in zip(right, chosen, strict=True)
    ]
    return Statistics(
        np.array(rows, dtype=np.float64), lambda sums: ratio(2 * sums[..., 0], sums[..., 1])
    )


def words_f1(texts: Sequence[str], accepted: Sequence[Sequence[str]]) -> Statistics:
    """Mean F1 of the words that a chosen text shares with the right one that shares most (ReCoRD's,
    Zhang et al. 2018, as SQuAD counts words)."""
    return squad.f1(texts, accepted)
