"""METEOR 1.5 (Denkowski & Lavie 2014): its own alignments, in one run of its jar."""

from __future__ import annotations

import numpy as np

from foreword.scoring.corpus import Corpus
from foreword.scoring.java import Unavailable, run
from foreword.scoring.statistics import Floats, Statistics

_COLUMNS = 23
_ALPHA, _BETA, _GAMMA, _DELTA = 0.85, 0.2, 0.6, 0.75
_MATCHERS = np.array([1.0, 0.6, 0.8, 0.6])
"""Weights of exact, stem, synonym and paraphrase matches; all constants are those for English."""


def meteor(corpus: Corpus) -> Statistics:
    """METEOR, 0 to 1, on PTB tokens, from the summed statistics of each output's best reference.

    Raises:
        Unavailable: without Java.
    """
    tokens = corpus.ptb
    lines = [
        " ||| ".join(["SCORE", *(_plain(text) for text in (*references, output))])
        for output, references in zip(tokens.outputs, tokens.references, strict=True)
    ]
    answer = run("meteor/meteor-1.5.jar", ["-", "-", "-stdio", "-l", "en", "-norm"], lines)
    try:
        rows = np.array([line.split() for line in answer], dtype=np.float64)
        rows = rows.reshape(len(lines), _COLUMNS)
    except ValueError as error:
        raise Unavailable(f"METEOR's answer is not {_COLUMNS} numbers a line: {error}") from error
    return Statistics(_without_perfect_chunks(rows), combine)


def combine(sums: Floats) -> Floats:
    """METEOR of summed statistics, `[..., 23]` to `[...]` (the paper's equations 1 to 5).

    Columns: length of output and reference; their function words; for each of the four matchers
    content words of output and reference and function words of both; chunks; matched words of both.
    """
    lengths, function = sums[..., 0:2], sums[..., 2:4]
    matches = sums[..., 4:20].reshape(*sums.shape[:-1], 4, 2, 2)
    content_matches, function_matches = matches[..., 0, :], matches[..., 1, :]
    weighted = _DELTA * content_matches + (1 - _DELTA) * function_matches
    matched = (_MATCHERS[:, None] * weighted).sum(axis=-2)
    size = _DELTA * (lengths - function) + (1 - _DELTA) * function
    shares = _ratio(matched, size)
    precision, recall = shares[..., 0], shares[..., 1]
    mean = _ratio(precision * recall, _ALPHA * precision + (1 - _ALPHA) * recall)
    fragmentation = _ratio(sums[..., 20], sums[..., 21:23].mean(axis=-1))
    return mean * (1 - _GAMMA * fragmentation**_BETA)


def _without_perfect_chunks(rows: Floats) -> Floats:
    """METEOR counts no chunk for an output that is its reference, word for word."""
    perfect = (rows[:, 20] == 1) & (rows[:, 21:23] == rows[:, 0:2]).all(axis=1)
    rows[perfect, 20] = 0
    return rows


def _plain(text: str) -> str:
    """Without METEOR's own separator."""
    return text.replace("|||", "")


def _ratio(top: Floats, bottom: Floats) -> Floats:
    """0 where there is nothing to divide by."""
    return np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)
