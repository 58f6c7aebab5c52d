"""BLEU and NIST of the E2E challenge's tool: mteval-13a tokens, whatever the case.

Where the tool's Python version parts from NIST's mteval-v13a.pl, this follows the tool: an empty
text is one empty token; an output of fewer than n tokens takes from the number of n-grams; BLEU is
not smoothed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np

from foreword.scoring.corpus import Corpus
from foreword.scoring.statistics import Floats, Statistics

Tokens = tuple[str, ...]
Segment = tuple[Tokens, list[Tokens]]
"""An output and its references."""

_BLEU_ORDER, _NIST_ORDER = 4, 5


def bleu(corpus: Corpus) -> Statistics:
    """BLEU-4, 0 to 1 (Papineni et al. 2002), the reference closest in length, the shorter of two.

    Columns: clipped matches of 1 to 4 tokens, output length, reference length, segments.
    """
    rows = []
    for output, references in _segments(corpus):
        closest = min((abs(len(r) - len(output)), len(r)) for r in references)[1]
        matches = [sum(_matches(output, references, n).values()) for n in range(1, _BLEU_ORDER + 1)]
        rows.append([*matches, len(output), closest, 1])
    return Statistics(np.array(rows, dtype=np.float64), _bleu)


def _bleu(sums: Floats) -> Floats:
    matches, length, reference, segments = (
        sums[..., :_BLEU_ORDER], sums[..., -3], sums[..., -2], sums[..., -1]
    )  # fmt: skip
    possible = _possible(length, segments, _BLEU_ORDER)
    precision = np.maximum(matches, 1e-15) / np.maximum(possible, 1e-9)
    brevity = np.exp(np.minimum(0, 1 - reference / length))
    return np.asarray(brevity * np.exp(np.log(precision).mean(axis=-1)))


def nist(corpus: Corpus) -> Statistics:
    """NIST-5, from 0 upwards (Doddington 2002).

    An n-gram's information is log2 of how often its first n-1 tokens stand in the references for
    each time that all n do; resampling leaves it as it is. Columns: information of the clipped
    matches of 1 to 5 tokens, output length, mean reference length, segments.
    """
    segments = list(_segments(corpus))
    count = _reference_counts(segments)

    def information(ngram: Tokens) -> float:
        return math.log2(count[ngram[:-1]] / count[ngram])

    rows = []
    for output, references in segments:
        gained = [
            math.fsum(
                times * information(ngram)
                for ngram, times in _matches(output, references, n).items()
            )
            for n in range(1, _NIST_ORDER + 1)
        ]
        mean = sum(map(len, references)) / len(references)
        rows.append([*gained, len(output), mean, 1])
    return Statistics(np.array(rows, dtype=np.float64), _nist)


def _nist(sums: Floats) -> Floats:
    gained, length, reference, segments = (
        sums[..., :_NIST_ORDER], sums[..., -3], sums[..., -2], sums[..., -1]
    )  # fmt: skip
    possible = _possible(length, segments, _NIST_ORDER)
    by_order = np.divide(gained, possible, out=np.zeros_like(gained), where=possible > 0)
    beta = math.log(0.5) / math.log(1.5) ** 2
    brevity = np.exp(beta * np.log(np.minimum(1, length / reference)) ** 2)
    return np.asarray(brevity * by_order.sum(axis=-1))


def _possible(length: Floats, segments: Floats, order: int) -> Floats:
    """How many n-grams the outputs hold, for n = 1 to order: `[..., order]`."""
    return length[..., None] - segments[..., None] * np.arange(order)


def _reference_counts(segments: Iterable[Segment]) -> Counter[Tokens]:
    """How often each n-gram stands in the references; () is their number of tokens."""
    count: Counter[Tokens] = Counter()
    for _, references in segments:
        for reference in references:
            count[()] += len(reference)
            for n in range(1, _NIST_ORDER + 1):
                count.update(_ngrams(reference, n))
    return count


def _matches(output: Tokens, references: list[Tokens], n: int) -> Counter[Tokens]:
    """N-grams that output and references share, each as often as one reference has it."""
    most: Counter[Tokens] = Counter()
    for reference in references:
        most |= Counter(_ngrams(reference, n))
    return Counter(_ngrams(output, n)) & most


def _ngrams(tokens: Tokens, n: int) -> Iterator[Tokens]:
    return zip(*(tokens[i:] for i in range(n)), strict=False)


def _segments(corpus: Corpus) -> Iterator[Segment]:
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    tokenizer = Tokenizer13a()

    def tokens(text: str) -> Tokens:
        return tuple(str(tokenizer(text)).lower().split(" "))

    for output, references in zip(corpus.outputs, corpus.references, strict=True):
        yield tokens(output), [tokens(reference) for reference in references]
