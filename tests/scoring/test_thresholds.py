"""The best threshold is the best of all there are, by scikit-learn's own F1."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from foreword.scoring.thresholds import best_threshold, best_thresholds, shared_threshold

rows = st.lists(
    st.tuples(st.integers(0, 20).map(lambda n: n / 20), st.booleans()), min_size=1, max_size=25
)


def f1(shares: np.ndarray, right: np.ndarray, threshold: float) -> float:
    return float(f1_score(right, shares >= threshold, zero_division=0))


@settings(max_examples=40, deadline=None)
@given(rows)
def test_no_other_threshold_is_better(given_rows: list[tuple[float, bool]]) -> None:
    shares = np.array([share for share, _ in given_rows])
    right = np.array([hit for _, hit in given_rows])
    found = best_threshold(shares, right)
    assert 0 <= found <= 1
    others = [f1(shares, right, other / 40) for other in range(41)]
    assert f1(shares, right, found) == pytest.approx(max(others))
    if f1(shares, right, 0.5) == pytest.approx(max(others)):
        assert found == 0.5, "a half, where it is as good as any"


def test_by_hand() -> None:
    assert best_threshold([0.9, 0.2, 0.1], [True, True, False]) == pytest.approx(0.15)
    assert best_threshold([0.9, 0.8, 0.1], [True, False, False]) == pytest.approx(0.85)
    assert best_threshold([0.9, 0.1], [False, False]) == 0.5, "nothing is right"
    assert best_threshold([0.2, 0.2], [True, False]) == pytest.approx(0.1), "equals stay together"
    assert best_threshold([0.0], [True]) == 0.0


def test_each_label_and_all_together() -> None:
    chance = np.random.default_rng(0)
    shares = chance.random((40, 3))
    right = chance.random((40, 3)) < shares * [0.2, 0.6, 1.0]
    each = best_thresholds(shares, right)
    assert each == [best_threshold(shares[:, i], right[:, i]) for i in range(3)]
    one = shared_threshold(shares, right)

    def scored(average: str, thresholds: list[float]) -> float:
        return float(f1_score(right, shares >= thresholds, average=average, zero_division=0))

    for other in np.linspace(0, 1, 51):
        assert scored("macro", each) >= scored("macro", [other] * 3) - 1e-12
        assert scored("micro", [one] * 3) >= scored("micro", [other] * 3) - 1e-12
