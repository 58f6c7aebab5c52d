"""Intervals: what is resampled, how wide they are, and that they can be had again."""

from __future__ import annotations

import random

import numpy as np
import pytest

from foreword.errors import UserError
from foreword.scoring import Corpus, Statistics, score
from foreword.scoring.ngrams import bleu, nist


def made(count: int, seed: int = 0) -> Corpus:
    chance = random.Random(seed)
    names = [
        "the",
        "pub",
        "is",
        "near",
        "a",
        "cheap",
        "river",
        "and",
        "serves",
        "good",
        "food",
        ".",
    ]
    outputs = [" ".join(chance.choices(names, k=12)) for _ in range(count)]
    references = []
    for text in outputs:
        words = text.split()
        for i in chance.sample(range(12), chance.randint(0, 6)):
            words[i] = chance.choice(names)
        references.append((" ".join(words), " ".join(chance.choices(names, k=10))))
    return Corpus(tuple(outputs), tuple(references))


def test_the_interval_of_a_mean_is_the_textbooks() -> None:
    """1.96 standard errors on either side, as far as 4000 samples tell."""
    values = np.random.default_rng(1).normal(3.0, 2.0, size=400)
    low, high = Statistics.mean(values).interval(4000, seed=0)
    half = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.03)


def test_resampled_bleu_is_bleu_of_the_resampled_segments() -> None:
    corpus = made(30)
    whole = bleu(corpus)
    draws = np.random.default_rng(5)
    for _ in range(5):
        rows = draws.integers(0, 30, size=30)
        again = Corpus(
            tuple(corpus.outputs[i] for i in rows), tuple(corpus.references[i] for i in rows)
        )
        weights = np.bincount(rows, minlength=30).astype(float)
        assert float(whole.combine(weights @ whole.segments)) == pytest.approx(bleu(again).value())


@pytest.mark.parametrize("measure", [bleu, nist])
def test_intervals_hold_the_value_and_shrink_with_more_segments(measure: object) -> None:
    widths = []
    for count in (1, 20, 320):
        statistics = measure(made(count))  # type: ignore[operator]
        low, high = statistics.interval(500, seed=0)
        assert low <= statistics.value() <= high
        widths.append(high - low)
    assert widths[0] == pytest.approx(0)
    assert widths[1] > 2 * widths[2] > 0


def test_a_seed_gives_the_same_interval_again() -> None:
    statistics = bleu(made(20))
    assert statistics.interval(300, seed=3) == statistics.interval(300, seed=3)
    assert statistics.interval(300, seed=3) != statistics.interval(300, seed=4)


def test_many_segments_are_drawn_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    statistics = bleu(made(50))
    whole = statistics.interval(100, seed=0)
    monkeypatch.setattr("foreword.scoring.statistics._CELLS", 120)
    assert statistics.interval(100, seed=0) == pytest.approx(whole, abs=1e-12)


def test_no_samples_no_intervals() -> None:
    assert score(["a b"], [["a b"]], ["bleu", "chrf"], samples=0).intervals == {}


@pytest.mark.parametrize(
    ("outputs", "references", "metrics", "message"),
    [
        ([], [], ["bleu"], "0 outputs"),
        (["a"], [["a"], ["b"]], ["bleu"], "1 outputs and 2 records"),
        (["a", "b"], [["a"], []], ["bleu"], "2 outputs and 1 records with references"),
        (["a"], [["a"]], ["blue"], "did you mean 'bleu'"),
    ],
)
def test_what_cannot_be_scored(
    outputs: list[str], references: list[list[str]], metrics: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        score(outputs, references, metrics)
