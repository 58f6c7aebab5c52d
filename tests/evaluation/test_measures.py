"""A metric's value is that of its sum over examples, and rows of answers say what metrics need."""

from __future__ import annotations

from typing import Any

import pytest

from foreword.data import Example
from foreword.evaluation import METRICS
from foreword.evaluation.rows import example_of, in_full, prediction_of, right
from foreword.tasks import Prediction

WRITTEN = ["an x sat here today", "y z so it goes"]
TEXTS = [Example({"r": {"a": "x"}}, ("an x sat here today", "x")), Example({"r": {}}, ("y z",))]
LABELS = [Example({"t": "a"}, label="no"), Example({"t": "b"}, label="yes")]
SEVERAL = [Example({"t": "a"}, labels=("p", "q")), Example({"t": "b"}, labels=())]
NUMBERS = [Example({"t": str(n)}, number=float(n)) for n in (1, 4, 2)]
CHOICES = [
    Example({"t": "a"}, ("one",), choices=("one", "two"), right=(0,)),
    Example({"t": "b"}, ("four",), choices=("three", "four"), right=(1,)),
]
CHOSEN = [
    Prediction("one", chosen=(0,), shares=(0.9,), log_likelihoods=(-1.0, -3.0)),
    Prediction("three", chosen=(0,), shares=(0.6,), log_likelihoods=(-1.0, -3.0)),
]
CASES: dict[str, tuple[list[Any], list[Example], dict[str, Any], list[str]]] = {
    "texts": (
        ["an x sat here today", "y z so it goes"],
        TEXTS,
        {},
        ["bleu", "chrf", "ter", "nist", "slot_coverage"],
    ),
    "labels": (["no", "no"], LABELS, {"labels": ("no", "yes")}, ["accuracy", "macro_f1", "f1"]),
    "several": ([("p",), ("q",)], SEVERAL, {"labels": ("p", "q")}, ["micro_f1", "samples_f1"]),
    "numbers": ([1.5, 3.0, 2.5], NUMBERS, {}, ["mse", "mae", "pearson", "spearman"]),
    "choices": (CHOSEN, CHOICES, {"several": False}, ["accuracy", "acc", "acc_norm"]),
}


@pytest.mark.parametrize("case", CASES)
def test_the_value_is_that_of_the_sum(case: str) -> None:
    answers, examples, options, names = CASES[case]
    for name in names:
        metric = METRICS[name]
        assert metric.measure is not None
        statistics = metric.measure(answers, examples, **options)
        assert statistics is not None, name
        assert len(statistics.segments) == len(examples)
        value = metric.score(answers, examples, **options)
        assert statistics.value() == pytest.approx(value, abs=1e-9), name


@pytest.mark.parametrize("example", [*TEXTS, *LABELS, *SEVERAL, *NUMBERS, *CHOICES])
def test_a_row_says_what_was_right(example: Example) -> None:
    again = example_of({"input": "x", **right(example)})
    assert right(again) == right(example)
    if example.references:
        assert again.references == example.references


@pytest.mark.parametrize("prediction", CHOSEN)
def test_a_row_says_what_metrics_ask_of_an_answer(prediction: Prediction) -> None:
    again = prediction_of({"output": prediction.answer, **in_full(prediction)})
    assert (again.answer, again.chosen) == (prediction.answer, prediction.chosen)
    assert again.log_likelihoods == prediction.log_likelihoods
