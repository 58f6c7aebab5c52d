"""A metric on resampled test items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from foreword.data import Example
from foreword.evaluation.metrics import METRICS, Metric
from foreword.scoring.statistics import Floats, Statistics

SAMPLES, SEED = 1000, 0
RECOMPUTED = 100
"""Samples of a metric that is no sum over items, and computed again for each."""
_CELLS = 4_000_000

Answers = Sequence[Any]


def resampled(
    metric: str,
    answers: Answers,
    examples: Sequence[Example],
    value: float,
    options: Mapping[str, Any],
) -> Floats | None:
    """A metric on each resampling of the test items, `[samples]`.

    Args:
        metric: its name.
        answers: of one run, as its metrics take them.
        examples: one an answer.
        value: what the run measured on all items; what is computed here must agree with it.
        options: what the task's metrics take beside.

    Returns:
        None where the metric cannot be computed again from what a run folder holds.
    """
    known = METRICS.get(metric)
    if known is None or not answers:
        return None
    statistics = None if known.measure is None else known.measure(answers, examples, **options)
    if statistics is None or not _agree(statistics.value(), value):
        return _recomputed(known, answers, examples, value, options)
    return _combined(statistics, _weights(len(answers)))


def _agree(one: float, other: float) -> bool:
    return bool(np.isclose(one, other, rtol=1e-6, atol=1e-6))


@lru_cache(maxsize=4)
def _weights(items: int) -> Floats:
    """How often each item stands in each resampling, `[samples, items]`; the same for all runs."""
    rng = np.random.default_rng(SEED)
    return rng.multinomial(items, np.full(items, 1 / items), size=SAMPLES).astype(np.float64)


def _combined(statistics: Statistics, weights: Floats) -> Floats:
    step = max(1, _CELLS // max(1, statistics.segments.size))
    parts = [
        statistics.combine(weights[start : start + step] @ statistics.segments)
        for start in range(0, len(weights), step)
    ]
    return np.concatenate(parts)


def _recomputed(
    metric: Metric,
    answers: Answers,
    examples: Sequence[Example],
    value: float,
    options: Mapping[str, Any],
) -> Floats | None:
    """The metric of each resampled list of answers, computed as for a whole run."""
    again = metric.score(answers, examples, **options)
    if again is None or not _agree(again, value):
        return None
    rng = np.random.default_rng(SEED)
    values = []
    for _ in range(RECOMPUTED):
        chosen = rng.integers(0, len(answers), len(answers))
        drawn = metric.score([answers[i] for i in chosen], [examples[i] for i in chosen], **options)
        values.append(np.nan if drawn is None else drawn)
    array = np.array(values)
    return None if np.isnan(array).any() else np.resize(array, SAMPLES)
