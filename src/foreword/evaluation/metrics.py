"""What is measured on answers. A new metric is a function and its entry in `METRICS`."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from foreword.scoring import MEASURES, Corpus, Unavailable
from foreword.tasks import Example


@dataclass(frozen=True)
class Metric:
    """A corpus measure.

    Attributes:
        title: what a table calls it.
        better: "high" or "low".
        score: from answers and their examples to a number, or None where it does not apply.
    """

    title: str
    better: str
    score: Callable[[Sequence[str], Sequence[Example]], float | None]


def bleu(answers: Sequence[str], examples: Sequence[Example]) -> float | None:
    """BLEU, 0 to 100, on lower-cased text: equal to the E2E challenge's tool (times 100)."""
    from sacrebleu.metrics import BLEU

    return _corpus(BLEU(lowercase=True), answers, examples)


def chrf(answers: Sequence[str], examples: Sequence[Example]) -> float | None:
    """chrF2, 0 to 100 (Popović 2015), as sacrebleu has it."""
    from sacrebleu.metrics import CHRF

    return _corpus(CHRF(), answers, examples)


def ter(answers: Sequence[str], examples: Sequence[Example]) -> float | None:
    """Translation edit rate in per cent of the reference's length (Snover et al. 2006)."""
    from sacrebleu.metrics import TER

    return _corpus(TER(), answers, examples)


def slot_coverage(answers: Sequence[str], examples: Sequence[Example]) -> float | None:
    """Share in per cent of the records' plain values that stand in the answer as whole words,
    whatever the case.

    Values that are only yes or no are said in other words and do not count.
    """
    found = total = 0
    for answer, example in zip(answers, examples, strict=True):
        for value in (example.record or {}).values():
            if value and value.casefold() not in ("yes", "no"):
                total += 1
                words = rf"(?<!\w){re.escape(value.casefold())}(?!\w)"
                found += re.search(words, answer.casefold()) is not None
    return 100 * found / total if total else None


def _corpus(metric: Any, answers: Sequence[str], examples: Sequence[Example]) -> float | None:
    if not answers or not all(example.references for example in examples):
        return None
    depth = max(len(example.references) for example in examples)
    streams = [
        [example.references[i] if i < len(example.references) else None for example in examples]
        for i in range(depth)
    ]
    return float(metric.corpus_score(list(answers), streams).score)


def _official(name: str) -> Metric:
    """A measure of the E2E challenge's tool on its own scale; None with a note without its Java."""
    measure = MEASURES[name]

    def score(answers: Sequence[str], examples: Sequence[Example]) -> float | None:
        if not answers or not all(example.references for example in examples):
            return None
        try:
            references = tuple(example.references for example in examples)
            return measure.statistics(_same_corpus(tuple(answers), references)).value()
        except Unavailable as reason:
            _note_absent(measure.title, str(reason))
            return None

    return Metric(measure.title, "high", score)


@lru_cache(maxsize=1)
def _same_corpus(answers: tuple[str, ...], references: tuple[tuple[str, ...], ...]) -> Corpus:
    """Measures that follow each other on the same answers share the tokenised texts."""
    return Corpus(answers, references)


@lru_cache
def _note_absent(title: str, reason: str) -> None:
    """Once for each measure and reason."""
    logging.getLogger("foreword").warning("%s is absent: %s", title, reason)


METRICS: dict[str, Metric] = {
    "bleu": Metric("BLEU", "high", bleu),
    "chrf": Metric("chrF", "high", chrf),
    "ter": Metric("TER", "low", ter),
    "slot_coverage": Metric("slots %", "high", slot_coverage),
    **{name: _official(name) for name in ("nist", "meteor", "rouge_l", "cider")},
}
