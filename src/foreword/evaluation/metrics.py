"""What is measured on answers.

A new metric of foreword is a function, its entry in `_MEASURES` and its name in `foreword.names`.
What an answer is depends on `Metric.of`: a text, a label or labels, a number, the `Prediction` of a
choice, the tags of an example's words, or the text of a span ("" for no answer).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np

from foreword import names
from foreword.data import Example
from foreword.data.tags import OUTSIDE, is_entity_tag
from foreword.scoring import MEASURES, Corpus, Statistics, Unavailable, retrieval, squad
from foreword.scoring import choices as of_choices
from foreword.scoring import labels as of_labels
from foreword.scoring import numbers as of_numbers
from foreword.scoring.characters import streams
from foreword.scoring.summaries import rouge
from foreword.scoring.tagging import Sentences, entity_score, tag_accuracy
from foreword.tasks import Prediction

Score = Callable[..., float | None]
"""From answers and their examples to a number, or None where it does not apply."""
Measure = Callable[..., Statistics | None]
"""From answers and their examples to what is summed over them, or None where it does not apply."""


@dataclass(frozen=True)
class Metric:
    """A corpus measure.

    Attributes:
        title: what a table calls it.
        better: "high" or "low".
        score: from answers and their examples to a number, or None where it does not apply. That
            of labels takes `labels=` too: all labels of the task, in their order.
        of: what an answer is, or several such.
        measure: the same as a sum over examples, which may be resampled; None where it is none.
    """

    title: str
    better: str
    score: Score
    of: names.Answer | tuple[names.Answer, ...]
    measure: Measure | None = None


def bleu(answers: Sequence[str], examples: Sequence[Example]) -> float | None:
    """BLEU, 0 to 100, on lower-cased text: equal to the E2E challenge's tool (times 100).

    Sacrebleu's is the faster one, of which training measures one after the other.
    """
    from sacrebleu.metrics import BLEU

    if not answers or not all(example.references for example in examples):
        return None
    corpus = Corpus(tuple(answers), tuple(example.references for example in examples))
    return float(BLEU(lowercase=True).corpus_score(list(answers), streams(corpus)).score)


def slot_coverage(answers: Sequence[str], examples: Sequence[Example]) -> Statistics | None:
    """Share in per cent of the records' plain values that stand in the answer as whole words,
    whatever the case.

    Values that are only yes or no are said in other words and do not count.
    """
    rows = []
    for answer, example in zip(answers, examples, strict=True):
        values = [value.casefold() for value in (example.record or {}).values()]
        values = [value for value in values if value and value not in ("yes", "no")]
        text = answer.casefold()
        hits = [re.search(rf"(?<!\w){re.escape(value)}(?!\w)", text) for value in values]
        rows.append((sum(hit is not None for hit in hits), len(values)))
    if not sum(count for _, count in rows):
        return None
    return Statistics(
        np.array(rows, dtype=np.float64), lambda sums: 100 * sums[..., 0] / sums[..., 1]
    )


def f1(
    answers: Sequence[str], examples: Sequence[Example], labels: Sequence[str] = ()
) -> Statistics | None:
    """F1 of the positive label in per cent: of two labels the last. None where there are more.

    Without `labels` they are those that stand or are answered, sorted: of 0 and 1 it is 1.
    """
    gold = _gold_labels(examples)
    known = tuple(labels) or tuple(sorted({*gold, *answers}))
    if not gold or len(known) > 2:
        return None
    return of_labels.f1(gold, answers, known[-1]).times(100)


def _labelled(measure: Callable[[Sequence[str], Sequence[str]], Statistics]) -> Measure:
    """A measure of labels, times 100, to which their order is nothing."""

    def score(
        answers: Sequence[str], examples: Sequence[Example], **_: Sequence[str]
    ) -> Statistics | None:
        gold = _gold_labels(examples)
        return measure(gold, answers).times(100) if gold else None

    return score


def _gold_labels(examples: Sequence[Example]) -> list[str]:
    """The right labels; none where an example has none."""
    gold = [example.label for example in examples if example.label is not None]
    return gold if len(gold) == len(examples) else []


def _several(average: of_labels.Average) -> Measure:
    """F1 of any number of labels a row, in per cent: of those of the task, which may be in no row,
    and of any others that stand or are told."""

    def score(
        answers: Sequence[Sequence[str]],
        examples: Sequence[Example],
        labels: Sequence[str] = (),
    ) -> Statistics | None:
        gold = _gold_sets(examples)
        seen = sorted({label for several in (*gold, *answers) for label in several})
        known = tuple(dict.fromkeys((*labels, *seen)))
        if not gold or not known:
            return None
        return of_labels.several_f1(gold, answers, known, average).times(100)

    return score


def subset_accuracy(
    answers: Sequence[Sequence[str]], examples: Sequence[Example], **_: Sequence[str]
) -> Statistics | None:
    """How often all labels of a row are right, and no other is told, in per cent."""
    gold = _gold_sets(examples)
    return of_labels.subset_accuracy(gold, answers).times(100) if gold else None


def _gold_sets(examples: Sequence[Example]) -> list[tuple[str, ...]]:
    """The right labels of each example; none where an example has none to compare with."""
    gold = [example.labels for example in examples if example.labels is not None]
    return gold if len(gold) == len(examples) else []


def _either(of_one: Measure, of_others: Measure) -> Measure:
    """A measure of one label a row, and of something else."""

    def measure(
        answers: Sequence[Any], examples: Sequence[Example], **options: Any
    ) -> Statistics | None:
        others = any(
            any(part is not None for part in (e.labels, e.choices, e.paired)) for e in examples
        )
        return (of_others if others else of_one)(answers, examples, **options)

    return measure


def _right(examples: Sequence[Example]) -> list[tuple[int, ...]]:
    """The numbers of each example's right choices; none where an example does not say it."""
    right = [example.right for example in examples if example.right is not None]
    return right if len(right) == len(examples) else []


def _choice_accuracy(
    answers: Sequence[Prediction], examples: Sequence[Example], several: bool = False
) -> Statistics | None:
    right, chosen = _right(examples), [answer.chosen for answer in answers]
    return of_choices.accuracy(right, chosen, several=several).times(100) if right else None


def _likeliest(
    answers: Sequence[Prediction],
    examples: Sequence[Example],
    *,
    by_length: bool = False,
    **_: bool,
) -> Statistics | None:
    right, logs = _right(examples), [answer.log_likelihoods for answer in answers]
    if not right or not all(logs):
        return None
    lengths = [[len(choice) for choice in example.choices or ()] for example in examples]
    return of_choices.likeliest(right, logs, lengths if by_length else None).times(100)


def _choices_f1(
    answers: Sequence[Prediction], examples: Sequence[Example], **_: bool
) -> Statistics | None:
    right, chosen = _right(examples), [answer.chosen for answer in answers]
    return of_choices.f1(right, chosen).times(100) if right else None


def _chosen_f1(
    answers: Sequence[Prediction], examples: Sequence[Example], several: bool = False
) -> Statistics | None:
    if several or not _right(examples):
        return None
    texts = [str(answer.answer) for answer in answers]
    return of_choices.words_f1(texts, [e.references for e in examples]).times(100)


def _of_numbers(
    measure: Callable[[Sequence[float], Sequence[float]], Statistics], scale: float = 1
) -> Measure:
    """A measure of numbers."""

    def score(answers: Sequence[float], examples: Sequence[Example]) -> Statistics | None:
        gold = [example.number for example in examples if example.number is not None]
        if not gold or len(gold) < len(examples):
            return None
        return measure(gold, answers).times(scale)

    return score


def _tagged(measure: Callable[[Sentences, Sentences], Statistics], *, entities: bool) -> Measure:
    """A measure of tags, times 100; one of entities is None where the tags are of another kind."""

    def score(answers: Sequence[Sequence[str]], examples: Sequence[Example]) -> Statistics | None:
        gold = [example.tags for example in examples if example.tags is not None]
        if not gold or len(gold) < len(examples):
            return None
        if entities and any(t != OUTSIDE and not is_entity_tag(t) for tags in gold for t in tags):
            return None
        return measure(gold, answers).times(100)

    return score


def _answered(measure: Callable[[Sequence[str], Sequence[Sequence[str]]], Statistics]) -> Measure:
    """A measure of answers to questions, times 100; () as spans says that there is none."""

    def score(answers: Sequence[str], examples: Sequence[Example]) -> Statistics | None:
        if not examples or any(not e.references and e.spans is None for e in examples):
            return None
        return measure(answers, [example.references for example in examples]).times(100)

    return score


def _measured(name: str, statistics: Callable[[Corpus], Statistics], scale: float = 1) -> Measure:
    """A measure of a corpus of texts; None, with a note, where what it needs is not installed."""

    def score(answers: Sequence[str], examples: Sequence[Example]) -> Statistics | None:
        if not answers or not all(example.references for example in examples):
            return None
        references = tuple(example.references for example in examples)
        try:
            return statistics(_same_corpus(tuple(answers), references)).times(scale)
        except Unavailable as reason:
            _note_absent(names.METRICS[name].title, str(reason))
            return None

    return score


@lru_cache(maxsize=1)
def _same_corpus(answers: tuple[str, ...], references: tuple[tuple[str, ...], ...]) -> Corpus:
    """Measures that follow each other on the same answers share the tokenised texts."""
    return Corpus(answers, references)


@lru_cache
def _note_absent(title: str, reason: str) -> None:
    """Once for each measure and reason."""
    logging.getLogger("foreword").warning("%s is absent: %s", title, reason)


def _retrieved(measure: Callable[[Sequence[int]], Statistics]) -> Measure:
    """A measure of the places of paired texts; None of pairs with a similarity."""

    def score(answers: Sequence[Prediction], examples: Sequence[Example]) -> Statistics | None:
        ranks = [answer.rank for answer in answers if answer.rank is not None]
        if not ranks or len(ranks) < len(examples):
            return None
        return measure(ranks).times(100)

    return score


def _of_cosines(measure: Measure) -> Measure:
    """A measure of numbers, of the cosines of pairs."""

    def score(answers: Sequence[Prediction], examples: Sequence[Example]) -> Statistics | None:
        return measure([answer.answer for answer in answers], examples)

    return score


def _correlation(measure: Callable[..., Statistics]) -> Measure:
    """A correlation of numbers that are told, or of the cosines of pairs."""
    numbers = _of_numbers(measure, scale=100)
    return _either(numbers, _of_cosines(numbers))


def precision_at_1(answers: Sequence[str], examples: Sequence[Example]) -> Statistics | None:
    """How often the most probable word is an answer, in percent (Petroni et al. 2019, 4.5)."""
    if not answers or not all(example.references for example in examples):
        return None
    hits = [a in e.references for a, e in zip(answers, examples, strict=True)]
    return Statistics.mean(hits).times(100)


_MEASURES: dict[str, Measure] = {
    "bleu": _measured("bleu", MEASURES["bleu"].statistics, scale=100),
    **{
        name: _measured(name, MEASURES[name].statistics)
        for name in ("chrf", "ter", "nist", "meteor", "rouge_l", "cider")
    },
    "slot_coverage": slot_coverage,
    **{
        name: _measured(name, partial(rouge, name), scale=100)
        for name in ("rouge1", "rouge2", "rougeL")
    },
    "accuracy": _either(_labelled(of_labels.accuracy), _choice_accuracy),
    "f1": f1,
    "macro_f1": _either(_labelled(of_labels.macro_f1), _several("macro")),
    "matthews": _labelled(of_labels.matthews),
    "micro_f1": _several("micro"),
    "samples_f1": _several("samples"),
    "subset_accuracy": subset_accuracy,
    "mse": _of_numbers(of_numbers.squared_error),
    "mae": _of_numbers(of_numbers.absolute_error),
    "pearson": _correlation(of_numbers.pearson),
    "spearman": _correlation(of_numbers.spearman),
    "acc": _likeliest,
    "acc_norm": partial(_likeliest, by_length=True),
    "choices_f1": _choices_f1,
    "chosen_f1": _chosen_f1,
    "entity_f1": _tagged(partial(entity_score, what="f1"), entities=True),
    "entity_precision": _tagged(partial(entity_score, what="precision"), entities=True),
    "entity_recall": _tagged(partial(entity_score, what="recall"), entities=True),
    "tag_accuracy": _tagged(tag_accuracy, entities=False),
    "exact_match": _answered(squad.exact_match),
    "squad_f1": _answered(squad.f1),
    "precision_at_1": precision_at_1,
    "recall_at_1": _retrieved(partial(retrieval.recall, most=1)),
    "recall_at_10": _retrieved(partial(retrieval.recall, most=10)),
    "mrr": _retrieved(retrieval.reciprocal_rank),
}
"""Metric -> what is summed over examples."""


def _value_of(measure: Measure) -> Score:
    """The value of a sum over all examples."""

    def score(answers: Sequence[Any], examples: Sequence[Example], **options: Any) -> float | None:
        statistics = measure(answers, examples, **options)
        return None if statistics is None else statistics.value()

    return score


_SCORES: dict[str, Score] = {
    **{name: _value_of(measure) for name, measure in _MEASURES.items()},
    "bleu": bleu,
}


class _Metrics(Mapping[str, Metric]):
    """Every metric that `foreword.names` knows, with what scores it."""

    def __getitem__(self, name: str) -> Metric:
        known = names.METRICS[name]
        score = known.score or _SCORES[name]
        return Metric(known.title, known.better, score, known.of, _MEASURES.get(name))

    def __iter__(self) -> Iterator[str]:
        return iter(names.METRICS)

    def __len__(self) -> int:
        return len(names.METRICS)


METRICS: Mapping[str, Metric] = _Metrics()
