"""A metric on resampled test items, for every metric that is a sum over them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np

from foreword.data import Example
from foreword.evaluation.metrics import METRICS
from foreword.scoring import MEASURES, Corpus, Statistics, Unavailable, squad
from foreword.scoring import labels as of_labels
from foreword.scoring.statistics import Floats
from foreword.scoring.summaries import rouge
from foreword.scoring.tagging import entity_score, tag_accuracy

SAMPLES, SEED = 1000, 0
RECOMPUTED = 100
"""Samples of a metric that is no sum over items, and computed again for each."""
_CELLS = 4_000_000

Answers = Sequence[Any]


@lru_cache(maxsize=4)
def weights(items: int, samples: int = SAMPLES) -> Floats:
    """How often each item stands in each resampling, `[samples, items]`; the same for all runs."""
    rng = np.random.default_rng(SEED)
    return rng.multinomial(items, np.full(items, 1 / items), size=samples).astype(np.float64)


def resampled(
    metric: str,
    answers: Answers,
    examples: Sequence[Example],
    value: float,
    labels: Sequence[str] = (),
) -> Floats | None:
    """A metric on each resampling of the test items, `[samples]`.

    Args:
        metric: its name.
        answers: of one run.
        examples: one an answer.
        value: what the run measured on all items; what is computed here must agree with it.
        labels: all labels of the task, in their order.

    Returns:
        None where the metric cannot be computed again from what a run folder holds.
    """
    if not answers:
        return None
    statistics = _statistics(metric, answers, examples, labels)
    if statistics is not None:
        again = statistics.value()
        for scale in (1.0, 100.0):
            if np.isclose(scale * again, value, rtol=1e-6, atol=1e-6):
                drawn = weights(len(answers))
                step = max(1, _CELLS // max(1, statistics.segments.size))
                parts = [
                    statistics.combine(drawn[start : start + step] @ statistics.segments)
                    for start in range(0, len(drawn), step)
                ]
                return scale * np.concatenate(parts)
    return _recomputed(metric, answers, examples, value, labels)


def _recomputed(
    metric: str,
    answers: Answers,
    examples: Sequence[Example],
    value: float,
    labels: Sequence[str],
) -> Floats | None:
    """The metric of each resampled list of answers, computed as for a whole run."""
    known = METRICS.get(metric)
    if known is None:
        return None
    options = {"labels": labels} if known.of == "label" else {}
    again = known.score(answers, examples, **options)
    if again is None or not np.isclose(again, value, rtol=1e-6, atol=1e-6):
        return None
    rng = np.random.default_rng(SEED)
    values = []
    for _ in range(RECOMPUTED):
        chosen = rng.integers(0, len(answers), len(answers))
        drawn = known.score([answers[i] for i in chosen], [examples[i] for i in chosen], **options)
        values.append(np.nan if drawn is None else drawn)
    array = np.array(values)
    return None if np.isnan(array).any() else np.resize(array, SAMPLES)


def _statistics(
    metric: str, answers: Answers, examples: Sequence[Example], labels: Sequence[str]
) -> Statistics | None:
    make = _BY_METRIC.get(metric)
    if make is None:
        return None
    try:
        return make(answers, examples, labels)
    except (Unavailable, ValueError, TypeError, KeyError):
        return None


def _of_corpus(measure: Callable[[Corpus], Statistics]) -> Callable[..., Statistics]:
    def make(answers: Answers, examples: Sequence[Example], _: Sequence[str]) -> Statistics:
        return measure(Corpus(tuple(answers), tuple(example.references for example in examples)))

    return make


def _of_labels(measure: Callable[..., Statistics]) -> Callable[..., Statistics]:
    def make(answers: Answers, examples: Sequence[Example], _: Sequence[str]) -> Statistics:
        return measure([example.label or "" for example in examples], answers)

    return make


def _of_tags(measure: Callable[..., Statistics]) -> Callable[..., Statistics]:
    def make(answers: Answers, examples: Sequence[Example], _: Sequence[str]) -> Statistics:
        return measure([example.tags or () for example in examples], answers)

    return make


def _of_questions(measure: Callable[..., Statistics]) -> Callable[..., Statistics]:
    def make(answers: Answers, examples: Sequence[Example], _: Sequence[str]) -> Statistics:
        return measure(answers, [example.references for example in examples])

    return make


def _slot_coverage(
    answers: Answers, examples: Sequence[Example], _: Sequence[str]
) -> Statistics | None:
    rows = []
    for answer, example in zip(answers, examples, strict=True):
        values = [v.casefold() for v in (example.record or {}).values()]
        values = [v for v in values if v and v not in ("yes", "no")]
        text = answer.casefold()
        said = sum(re.search(rf"(?<!\w){re.escape(v)}(?!\w)", text) is not None for v in values)
        rows.append((said, len(values)))
    sums = np.array(rows, dtype=np.float64)
    if not sums[:, 1].any():
        return None
    return Statistics(sums, lambda total: total[..., 0] / total[..., 1])


def _first_of_many(answers: Answers, examples: Sequence[Example], _: Sequence[str]) -> Statistics:
    return Statistics.mean(
        [float(a in e.references) for a, e in zip(answers, examples, strict=True)]
    )


_BY_METRIC: dict[str, Callable[..., Statistics | None]] = {
    **{name: _of_corpus(measure.statistics) for name, measure in MEASURES.items()},
    **{name: _of_corpus(partial(rouge, name)) for name in ("rouge1", "rouge2", "rougeL")},
    "slot_coverage": _slot_coverage,
    "accuracy": _of_labels(of_labels.accuracy),
    "macro_f1": _of_labels(of_labels.macro_f1),
    "matthews": _of_labels(of_labels.matthews),
    "entity_f1": _of_tags(partial(entity_score, what="f1")),
    "entity_precision": _of_tags(partial(entity_score, what="precision")),
    "entity_recall": _of_tags(partial(entity_score, what="recall")),
    "tag_accuracy": _of_tags(tag_accuracy),
    "exact_match": _of_questions(squad.exact_match),
    "squad_f1": _of_questions(squad.f1),
    "precision_at_1": _first_of_many,
}
