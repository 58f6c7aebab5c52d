"""Which texts are found by their vectors' cosines."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from foreword.scoring.statistics import Floats, Statistics

_ROWS = 512
"""How many texts are compared with all others at a time."""


def cosines(first: Floats, second: Floats) -> Floats:
    """The cosine of each row of one matrix and the same row of another; 0 with a zero vector."""
    products: Floats = (_unit(first) * _unit(second)).sum(axis=-1)
    return products


def ranks(
    inputs: Floats, texts: Floats, names: Sequence[str], own: Sequence[Sequence[str]]
) -> list[int]:
    """The place, from 1, of the first of each input's own texts among all, the nearest first.

    Equal texts are one. Others that are exactly as near as an own one come after it.

    Args:
        inputs: their vectors, `[N, d]`.
        texts: the vectors of all texts, `[M, d]`.
        names: the texts themselves, M of them.
        own: for each input the texts that belong to it, at least one.
    """
    first: dict[str, int] = {}
    for number, name in enumerate(names):
        first.setdefault(name, number)
    place = {name: at for at, name in enumerate(first)}
    right = _unit(texts[list(first.values())]).T
    left = _unit(inputs)
    places: list[int] = []
    for start in range(0, len(left), _ROWS):
        near = left[start : start + _ROWS] @ right
        for row, mine in zip(near, own[start : start + _ROWS], strict=True):
            numbers = [place[name] for name in mine]
            best = row[numbers].max()
            row[numbers] = -np.inf
            places.append(1 + int((row > best).sum()))
    return places


def recall(places: Sequence[int], most: int) -> Statistics:
    """The share of inputs of which a text is among the nearest `most`."""
    return Statistics.mean([place <= most for place in places])


def reciprocal_rank(places: Sequence[int]) -> Statistics:
    """The mean of one over the place (MRR)."""
    return Statistics.mean([1 / place for place in places])


def _unit(rows: Floats) -> Floats:
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    unit: Floats = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
    return unit
