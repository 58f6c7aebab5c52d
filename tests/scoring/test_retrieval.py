"""Places of texts by their cosines, against a sort."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics.pairwise import cosine_similarity

from foreword.scoring import retrieval


def test_places_are_those_of_a_sort() -> None:
    draws = np.random.default_rng(0)
    names = [f"text {n}" for n in range(700)]
    inputs, texts = draws.normal(size=(700, 5)), draws.normal(size=(700, 5))
    own = [[name] for name in names]
    own[3] = ["text 3", "text 9"]
    near = cosine_similarity(inputs, texts)
    expected = [int((row > row[n]).sum()) + 1 for n, row in enumerate(near)]
    others = np.delete(near[3], [3, 9])
    expected[3] = 1 + int((others > max(near[3, 3], near[3, 9])).sum())
    places = retrieval.ranks(inputs, texts, names, own)
    assert places == expected
    assert retrieval.recall(places, 10).value() == np.mean([place <= 10 for place in places])
    assert retrieval.reciprocal_rank([1, 4]).value() == pytest.approx(0.625)
    assert retrieval.cosines(inputs, texts) == pytest.approx(near.diagonal(), abs=1e-12)


def test_equal_texts_are_one_and_ties_come_after() -> None:
    inputs = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    texts = np.array([[1.0, 1.0], [1.0, 1.0 - 1e-9], [1.0, 1.0]])
    assert retrieval.ranks(inputs, texts, ["a", "a", "b"], [["a"], ["b"], ["b"]]) == [1, 1, 1]
