"""Exact match and F1 of SQuAD, 0 to 1, with the official evaluation's normalisation.

Its version 2.0 (Rajpurkar et al. 2018); on questions that have an answer it equals version 1.1,
unless nothing is left of an answer after normalisation.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

from foreword.scoring.statistics import Statistics

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(text: str) -> str:
    """In small letters, without ASCII punctuation, without a, an and the, single blanks."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(answers: Sequence[str], references: Sequence[Sequence[str]]) -> Statistics:
    """Share of answers that are one of their references, after normalisation.

    Args:
        answers: "" where none is given.
        references: acceptable answers of each; () where the question has none.
    """
    return _best(answers, references, lambda answer, one: float(answer == one))


def f1(answers: Sequence[str], references: Sequence[Sequence[str]]) -> Statistics:
    """Mean F1 of the words shared with the reference that shares most; the arguments are those of
    `exact_match`. No answer is right for a question without one, and nothing else is."""
    return _best(answers, references, _overlap)


def _best(
    answers: Sequence[str],
    references: Sequence[Sequence[str]],
    compare: Callable[[str, str], float],
) -> Statistics:
    values = []
    for answer, own in zip(answers, references, strict=True):
        accepted = [text for one in own if (text := normalise(one))] or [""]
        values.append(max(compare(normalise(answer), one) for one in accepted))
    return Statistics.mean(values)


def _overlap(answer: str, reference: str) -> float:
    words, wanted = answer.split(), reference.split()
    if not words or not wanted:
        return float(words == wanted)
    shared = sum((Counter(words) & Counter(wanted)).values())
    return 2 * shared / (len(words) + len(wanted))
