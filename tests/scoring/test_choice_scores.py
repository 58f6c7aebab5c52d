"""Measures of choices by hand, and against scikit-learn."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from foreword.scoring.choices import accuracy, f1, likeliest, words_f1

SETS = st.lists(st.tuples(*[st.frozensets(st.integers(0, 4))] * 2), min_size=1, max_size=20)


def test_one_choice_by_hand() -> None:
    assert accuracy([(0,), (1, 2), (0,)], [(0,), (2,), (1,)]).value() == pytest.approx(2 / 3)
    logs = [[-3.0, -2.0], [-8.0, -9.0], [-1.0, -1.0]]
    assert likeliest([(1,), (0,), (0,)], logs).value() == 1, "of equals the first"
    assert likeliest([(1,), (0,), (1,)], logs).value() == pytest.approx(2 / 3)
    lengths = [[6, 2], [8, 12], [1, 2]]
    assert likeliest([(0,), (1,), (1,)], logs, lengths).value() == 1


@settings(max_examples=60, deadline=None)
@given(SETS)
def test_several_choices(rows: list[tuple[frozenset[int], frozenset[int]]]) -> None:
    right, chosen = [sorted(a) for a, _ in rows], [sorted(b) for _, b in rows]
    flat = [
        [n in side for sides in every for n in range(5) for side in (sides,)]
        for every in (right, chosen)
    ]
    assert f1(right, chosen).value() == pytest.approx(f1_score(*flat, zero_division=0))
    exact = sum(a == b for a, b in rows) / len(rows)
    assert accuracy(right, chosen, several=True).value() == pytest.approx(exact)


def test_words_of_the_chosen_text() -> None:
    assert words_f1(["The New York"], [["New York City", "York"]]).value() == pytest.approx(4 / 5)
    assert words_f1(["Bo", "x"], [["Bo"], ["y"]]).value() == pytest.approx(1 / 2)
