"""Errors and correlations of numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from foreword.scoring.statistics import Floats, Statistics

Numbers = Sequence[float] | Floats


def squared_error(gold: Numbers, predicted: Numbers) -> Statistics:
    """Mean squared error."""
    return Statistics.mean(np.square(_apart(gold, predicted)))


def absolute_error(gold: Numbers, predicted: Numbers) -> Statistics:
    """Mean absolute error."""
    return Statistics.mean(np.abs(_apart(gold, predicted)))


def pearson(gold: Numbers, predicted: Numbers) -> Statistics:
    """Pearson's correlation, -1 to 1; 0 where either side is constant."""
    columns = [_centred(gold), _centred(predicted)]
    x, y = columns
    return Statistics(np.stack([x, y, x * x, y * y, x * y, np.ones_like(x)], axis=-1), _pearson)


def spearman(gold: Numbers, predicted: Numbers) -> Statistics:
    """Spearman's rank correlation: Pearson's of the ranks among all segments, equals sharing the
    mean of theirs. A resampled set keeps the ranks of the whole."""
    return pearson(ranks(gold), ranks(predicted))


def ranks(values: Numbers) -> Floats:
    """From 1 on; equal values share the mean of their ranks."""
    given = np.asarray(values, dtype=np.float64)
    _, inverse, counts = np.unique(given, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    averaged: Floats = (last - (counts - 1) / 2)[inverse]
    return averaged


def _apart(gold: Numbers, predicted: Numbers) -> Floats:
    difference: Floats = np.asarray(predicted, dtype=np.float64) - np.asarray(
        gold, dtype=np.float64
    )
    return difference


def _centred(values: Numbers) -> Floats:
    """Less their mean, divided by the largest distance from it: products then keep their digits."""
    given = np.asarray(values, dtype=np.float64)
    centred = given - given.mean()
    largest = np.abs(centred).max()
    # What is left of equal numbers is rounding.
    if largest <= 1e-13 * np.abs(given).max():
        return np.zeros_like(given)
    scaled: Floats = centred / largest
    return scaled


def _pearson(sums: Floats) -> Floats:
    x, y, xx, yy, xy, count = np.moveaxis(sums, -1, 0)
    shared = xy * count - x * y
    spread = np.maximum(xx * count - x**2, 0) * np.maximum(yy * count - y**2, 0)
    bottom = np.sqrt(spread)
    correlation: Floats = np.divide(shared, bottom, out=np.zeros_like(shared), where=bottom > 0)
    return correlation
