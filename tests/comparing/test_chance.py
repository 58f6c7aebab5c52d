"""A planted difference is called one, a planted tie is called a tie."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_ind
from statistics_by_hand import drawn_scores

from foreword.comparing.statistics import Difference, Scores, differences, holm, ranks


@pytest.mark.parametrize(
    ("items", "between_seeds"), [(150, 1.0), (600, 5.0)], ids=["items decide", "seeds decide"]
)
def test_a_planted_tie_is_called_a_difference_no_more_often_than_five_in_a_hundred(
    items, between_seeds
) -> None:
    """Also where three seeds differ by more than test items do, so that leaving either of both
    variances out would show."""
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(1000):
        tie = drawn_scores(
            rng, {"a": 60.0, "b": 60.0}, runs=3, items=items, between_seeds=between_seeds
        )
        wrong += differences(tie)[0].more_than_chance
    assert wrong / 1000 <= 0.064  # 0.05 and two standard errors of 1,000 draws


def test_among_four_equal_methods_one_is_called_better_no_more_often() -> None:
    rng = np.random.default_rng(1)
    wrong = 0
    means = dict.fromkeys("abcd", 60.0)
    for _ in range(500):
        tie = drawn_scores(rng, means, runs=3, items=150, between_seeds=1.0)
        wrong += any(pair.more_than_chance for pair in differences(tie))
    assert wrong / 500 <= 0.07


def test_a_planted_difference_is_found() -> None:
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(200):
        apart = drawn_scores(rng, {"a": 70.0, "b": 60.0}, runs=5, items=400, between_seeds=1.0)
        (pair,) = differences(apart)
        hits += pair.winner == "a"
    assert hits / 200 > 0.9


def test_one_run_each_tests_these_prompts_and_says_so() -> None:
    rng = np.random.default_rng(3)
    one = drawn_scores(rng, {"a": 80.0, "b": 50.0}, runs=1, items=400, between_seeds=0.0)
    (pair,) = differences(one)
    assert pair.more_than_chance
    assert not pair.of_methods
    assert "one seed says nothing of other seeds" in pair.sentence("accuracy", 1, 1)


def test_nothing_is_known_where_one_of_two_has_a_single_run() -> None:
    scores = {"a": Scores(np.array([1.0, 2.0, 3.0])), "b": Scores(np.array([9.0]))}
    (pair,) = differences(scores)
    assert pair.p is None
    assert pair.winner is None
    assert "nothing is known of chance" in pair.sentence("BLEU", 1, 1)


def test_seeds_alone_are_welchs_test() -> None:
    a, b = np.array([1.0, 2.0, 4.0]), np.array([3.0, 5.0, 9.0, 6.0])
    (pair,) = differences({"a": Scores(a), "b": Scores(b)})
    reference = ttest_ind(a, b, equal_var=False)
    assert pair.p == pytest.approx(reference.pvalue, abs=1e-12)
    interval = reference.confidence_interval(0.95)
    assert pair.interval == pytest.approx((interval.low, interval.high), abs=1e-12)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_never_lowers_a_p_value_nor_changes_the_order(values: list[float]) -> None:
    corrected = holm(values)
    assert all(c is not None and c >= p for c, p in zip(corrected, values, strict=True))
    in_order = sorted(range(len(values)), key=lambda i: values[i])
    sorted_values = [corrected[i] or 0.0 for i in in_order]
    assert sorted_values == sorted(sorted_values)


def test_holms_own_numbers() -> None:
    assert holm([0.01, 0.04, 0.03, None]) == [pytest.approx(0.03), 0.06, 0.06, None]


def test_low_is_good_of_a_metric_of_errors() -> None:
    pair = Difference("a", "b", -4.0, (-6.0, -2.0), 0.001, 0.001, (3, 3), "low")
    assert pair.winner == "a"
    assert pair.sentence("TER", 1, 1).startswith(
        "a is 4.0 TER ahead of b, more than chance (95 % interval 2.0 to 6.0;"
    )
    turned = Difference("b", "a", 4.0, (2.0, 6.0), 0.001, 0.001, (3, 3), "low")
    assert turned.sentence("TER", 1, 1) == pair.sentence("TER", 1, 1)


def test_places_and_their_intervals() -> None:
    rng = np.random.default_rng(4)
    scores = drawn_scores(
        rng, {"best": 90.0, "same": 60.0, "too": 60.0}, runs=5, items=400, between_seeds=0.5
    )
    places = ranks(scores)
    assert (places["best"].place, places["best"].low, places["best"].high) == (1, 1, 1)
    assert {places["same"].low, places["too"].high} == {2, 3}
