"""Precision, recall and F1 of entities, 0 to 1, as conlleval counts them (Tjong Kim Sang 2002).

An entity is right where its type, its first and its last word are. Counted over all sentences
(micro average), so frequent types weigh more.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import numpy as np

from foreword.data.tags import entities
from foreword.scoring.labels import ratio
from foreword.scoring.statistics import Floats, Statistics

Sentences = Sequence[Sequence[str | None]]
"""Tags of each sentence's words; None where a word has none."""


def entity_score(
    gold: Sentences, predicted: Sentences, what: Literal["f1", "precision", "recall"] = "f1"
) -> Statistics:
    """One of the three; 0 where there is no entity to divide by.

    Columns: entities that are right, that stand, that are said. Sentences are what is resampled.
    """
    rows = []
    for own, tags in zip(gold, predicted, strict=True):
        a, b = entities(own), entities(tags)
        rows.append([len(a & b), len(a), len(b)])
    return Statistics(np.array(rows, dtype=np.float64), partial(_combine, what))


def tag_accuracy(gold: Sentences, predicted: Sentences) -> Statistics:
    """Share of words whose tag is right. Sentences are what is resampled."""
    rows = [
        [sum(a == b for a, b in zip(own, tags, strict=True)), len(own)]
        for own, tags in zip(gold, predicted, strict=True)
    ]
    return Statistics(np.array(rows, dtype=np.float64), lambda s: ratio(s[..., 0], s[..., 1]))


def _combine(what: str, sums: Floats) -> Floats:
    right, gold, predicted = np.moveaxis(sums, -1, 0)
    if what == "precision":
        return ratio(right, predicted)
    return ratio(right, gold) if what == "recall" else ratio(2 * right, gold + predicted)
