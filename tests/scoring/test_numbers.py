"""Errors and correlations of numbers are those of scipy and scikit-learn."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import mean_absolute_error, mean_squared_error

from foreword.scoring.numbers import absolute_error, pearson, ranks, spearman, squared_error

numbers = st.one_of(st.integers(-5, 5).map(float), st.floats(-1e6, 1e6, allow_subnormal=False))
rows = st.lists(st.tuples(numbers, numbers), min_size=2, max_size=30)


@settings(max_examples=100, deadline=None)
@given(rows)
def test_they_are_those_of_scipy_and_scikit_learn(pairs: list[tuple[float, float]]) -> None:
    gold, found = (np.array(side) for side in zip(*pairs, strict=True))
    assert squared_error(gold, found).value() == pytest.approx(mean_squared_error(gold, found))
    assert absolute_error(gold, found).value() == pytest.approx(mean_absolute_error(gold, found))
    np.testing.assert_array_equal(ranks(gold), stats.rankdata(gold))
    for side in (gold, found):
        assume(np.ptp(side) > 1e-6 * max(1.0, np.abs(side).max()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = stats.pearsonr(gold, found).statistic, stats.spearmanr(gold, found).statistic
    assert pearson(gold, found).value() == pytest.approx(expected[0], abs=1e-7)
    assert spearman(gold, found).value() == pytest.approx(expected[1], abs=1e-9)


def test_large_numbers_keep_their_correlation() -> None:
    gold = 1e9 + np.arange(20)
    assert pearson(gold, 3 * gold).value() == pytest.approx(1)
    assert pearson(gold, -gold).value() == pytest.approx(-1)


def test_a_constant_side_has_none() -> None:
    for constant in ([0.1, 0.1, 0.1], [0.0] * 3, [1e9 + 0.1] * 3):
        assert pearson([1, 2, 3], constant).value() == 0
        assert spearman(constant, [1, 2, 3]).value() == 0
    assert pearson([2.0], [3.0]).value() == 0


def test_they_are_resampled_like_every_measure() -> None:
    chance = np.random.default_rng(0)
    gold = chance.normal(size=60)
    found = gold + chance.normal(size=60)
    for measure in (squared_error, absolute_error, pearson, spearman):
        low, high = measure(gold, found).interval(300, seed=0)
        assert low < measure(gold, found).value() < high
