"""Scores whose truth is known: items with a chance of their own, seeds that are off by a draw."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from foreword.comparing.statistics import Scores


def drawn_scores(
    rng: np.random.Generator,
    means: Mapping[str, float],
    *,
    runs: int,
    items: int,
    between_seeds: float,
    samples: int = 200,
) -> dict[str, Scores]:
    """Accuracies in per cent of methods on the same items.

    Args:
        rng: draws.
        means: method -> its true accuracy.
        runs: of each method.
        items: test items, which some methods' runs find harder than others.
        between_seeds: standard deviation of a run's true accuracy, in points.
        samples: of the bootstrap.
    """
    difficulty = rng.normal(0, 10, size=items)
    weights = rng.multinomial(items, np.full(items, 1 / items), size=samples) / items
    scores = {}
    for name, mean in means.items():
        true = mean + rng.normal(0, between_seeds, size=(runs, 1)) + difficulty
        right = 100.0 * (rng.random((runs, items)) < true / 100)
        scores[name] = Scores(right.mean(axis=1), right @ weights.T, items)
    return scores
