"""The measures by name, and the scores of a corpus with their intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from foreword.errors import UserError, did_you_mean, refuse_single
from foreword.scoring.captions import cider, rouge_l
from foreword.scoring.characters import chrf, ter
from foreword.scoring.corpus import Corpus
from foreword.scoring.java import Unavailable
from foreword.scoring.meteor import meteor
from foreword.scoring.ngrams import bleu, nist
from foreword.scoring.statistics import Statistics


@dataclass(frozen=True)
class Measure:
    """A measure of a corpus.

    Attributes:
        title: as the official tool writes it.
        statistics: what is summed over segments.
    """

    title: str
    statistics: Callable[[Corpus], Statistics]


MEASURES = {
    "bleu": Measure("BLEU", bleu),
    "nist": Measure("NIST", nist),
    "meteor": Measure("METEOR", meteor),
    "rouge_l": Measure("ROUGE_L", rouge_l),
    "cider": Measure("CIDEr", cider),
    "chrf": Measure("chrF", chrf),
    "ter": Measure("TER", ter),
}
OFFICIAL = ("bleu", "nist", "meteor", "rouge_l", "cider")
"""The five of the E2E challenge."""


@dataclass(frozen=True)
class Scores:
    """What outputs are worth.

    Attributes:
        values: measure to value, None where it is absent.
        intervals: measure to its 95 % interval, for those that are not absent.
        absent: measure to the reason.
        segments: how many outputs were measured.
    """

    values: dict[str, float | None]
    intervals: dict[str, tuple[float, float]]
    absent: dict[str, str]
    segments: int


def score(
    outputs: Sequence[str],
    references: Sequence[Sequence[str]],
    metrics: Sequence[str] = OFFICIAL,
    *,
    samples: int = 1000,
    seed: int = 0,
) -> Scores:
    """Score outputs against references.

    Args:
        outputs: one a segment.
        references: one or more a segment.
        metrics: names in `MEASURES`.
        samples: bootstrap samples for the intervals; 0 for none.
        seed: of the bootstrap.

    Raises:
        UserError: an unknown name, no segments, a segment without a reference, unequal numbers.
    """
    for what, given in {"outputs": outputs, "references": references, "metrics": metrics}.items():
        refuse_single(what, given)
    for number, texts in enumerate(references):
        refuse_single(f"references[{number}]", texts)
    for name in metrics:
        if name not in MEASURES:
            raise UserError(f"metrics: '{name}' is not known{did_you_mean(name, MEASURES)}")
    if not outputs or len(outputs) != len(references) or not all(references):
        raise UserError(
            f"expected as many outputs as records with references, and one at least; found "
            f"{len(outputs)} outputs and {sum(map(bool, references))} records with references"
        )
    corpus = Corpus(tuple(outputs), tuple(map(tuple, references)))
    values: dict[str, float | None] = {}
    intervals, absent = {}, {}
    for name in dict.fromkeys(metrics):
        try:
            statistics = MEASURES[name].statistics(corpus)
        except Unavailable as reason:
            values[name], absent[name] = None, str(reason)
            continue
        values[name] = statistics.value()
        if samples:
            intervals[name] = statistics.interval(samples, seed)
    return Scores(values, intervals, absent, len(outputs))
