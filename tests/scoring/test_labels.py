"""Measures of labels against scikit-learn and by hand."""

from __future__ import annotations

import math
import random
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn

from foreword.scoring.labels import (
    accuracy,
    f1,
    macro_f1,
    matthews,
    several_f1,
    subset_accuracy,
)

pairs = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from("abcde")), min_size=1, max_size=40
)


def apart(rows: list[tuple[str, str]]) -> tuple[list[str], list[str]]:
    return [a for a, _ in rows], [b for _, b in rows]


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    """scikit-learn warns of labels that are never predicted."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@settings(max_examples=60, deadline=None)
@given(pairs)
def test_all_are_scikit_learns(rows: list[tuple[str, str]]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gold, found = apart(rows)
        assert accuracy(gold, found).value() == pytest.approx(sklearn.accuracy_score(gold, found))
        assert macro_f1(gold, found).value() == pytest.approx(
            sklearn.f1_score(gold, found, average="macro", zero_division=0)
        )
        assert matthews(gold, found).value() == pytest.approx(
            sklearn.matthews_corrcoef(gold, found), abs=1e-12
        )
        for positive in "abf":
            binary = [label == positive for label in gold], [label == positive for label in found]
            assert f1(gold, found, positive).value() == pytest.approx(
                sklearn.f1_score(*binary, zero_division=0)
            )


SETS = st.lists(st.tuples(*[st.frozensets(st.sampled_from("abcd"))] * 2), min_size=1, max_size=25)


@settings(max_examples=60, deadline=None)
@given(SETS)
def test_measures_of_several_labels_are_scikit_learns(
    rows: list[tuple[frozenset[str], frozenset[str]]],
) -> None:
    labels = "abcd"
    gold, found = [sorted(a) for a, _ in rows], [sorted(b) for _, b in rows]
    arrays = [np.array([[x in own for x in labels] for own in told]) for told in (gold, found)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for average in ("micro", "macro", "samples"):
            assert several_f1(gold, found, labels, average).value() == pytest.approx(
                sklearn.f1_score(*arrays, average=average, zero_division=0)
            )
        assert subset_accuracy(gold, found).value() == pytest.approx(
            sklearn.accuracy_score(*arrays)
        )


def test_several_labels_by_hand() -> None:
    gold, found = [["a", "b"], [], ["a"]], [["a"], [], ["a", "c"]]
    assert several_f1(gold, found, "abc", "micro").value() == pytest.approx(4 / 6)
    assert several_f1(gold, found, "abc", "macro").value() == pytest.approx(1 / 3)
    assert several_f1(gold, found, "abc", "samples").value() == pytest.approx(4 / 9)
    assert subset_accuracy(gold, found).value() == pytest.approx(1 / 3)
    spread = several_f1(gold * 20, found * 20, "abc", "samples").interval(200, seed=0)
    assert spread[0] < 4 / 9 < spread[1], "they are resampled like every measure"


def test_by_hand() -> None:
    gold, found = list("11110000"), list("11100001")
    assert accuracy(gold, found).value() == 6 / 8
    assert f1(gold, found, "1").value() == pytest.approx(3 / 4)
    assert macro_f1(list("1110"), list("1111")).value() == pytest.approx((6 / 7 + 0) / 2)
    right, wrong = 3 * 3, 1 * 1
    assert matthews(gold, found).value() == pytest.approx((right - wrong) / math.sqrt(4**4))


def test_one_label_has_no_correlation() -> None:
    assert matthews(["a", "a"], ["a", "a"]).value() == 0
    assert matthews(["a", "b"], ["a", "a"]).value() == 0


@settings(max_examples=60, deadline=None)
@given(pairs, st.randoms(use_true_random=False))
def test_order_and_names_change_nothing(rows: list[tuple[str, str]], chance: random.Random) -> None:
    renamed = [(f"label {a}", f"label {b}") for a, b in chance.sample(rows, len(rows))]
    for measure in (accuracy, macro_f1, matthews):
        assert measure(*apart(renamed)).value() == pytest.approx(measure(*apart(rows)).value())


@settings(max_examples=60, deadline=None)
@given(pairs)
def test_perfect_answers(rows: list[tuple[str, str]]) -> None:
    gold, _ = apart(rows)
    assert accuracy(gold, gold).value() == macro_f1(gold, gold).value() == 1
    assert matthews(gold, gold).value() == pytest.approx(float(len(set(gold)) > 1))


def test_all_can_be_resampled() -> None:
    chance = random.Random(0)
    gold = [chance.choice("ab") for _ in range(300)]
    found = [label if chance.random() < 0.8 else chance.choice("ab") for label in gold]
    for measure in (accuracy(gold, found), f1(gold, found, "b"), matthews(gold, found)):
        low, high = measure.interval(500, 0)
        assert low < measure.value() < high
        assert 0.02 < high - low < 0.25
    draws = np.random.default_rng(0).multinomial(300, np.full(300, 1 / 300)).astype(float)
    drawn = [i for i, times in enumerate(draws) for _ in range(int(times))]
    again = macro_f1([gold[i] for i in drawn], [found[i] for i in drawn]).value()
    stats = macro_f1(gold, found)
    assert float(stats.combine(draws @ stats.segments)) == pytest.approx(again)
