"""chrF and TER, by sacrebleu, beside the official five."""

from __future__ import annotations

from typing import Any

import numpy as np

from foreword.scoring.corpus import Corpus
from foreword.scoring.statistics import Floats, Statistics


def chrf(corpus: Corpus) -> Statistics:
    """chrF2, 0 to 100 (Popović 2015)."""
    from sacrebleu.metrics import CHRF

    return _statistics(CHRF(), corpus)


def ter(corpus: Corpus) -> Statistics:
    """Edits in per cent of the reference's length (Snover et al. 2006); low is good."""
    from sacrebleu.metrics import TER

    return _statistics(TER(), corpus)


def _statistics(metric: Any, corpus: Corpus) -> Statistics:
    # sacrebleu resamples these too, but gives neither the statistics nor the interval's two ends.
    rows = metric._extract_corpus_statistics(list(corpus.outputs), streams(corpus))

    def combine(sums: Floats) -> Floats:
        def one(row: Floats) -> float:
            return float(metric._compute_score_from_stats(row.tolist()).score)

        return np.apply_along_axis(one, -1, sums)

    return Statistics(np.array(rows, dtype=np.float64), combine)


def streams(corpus: Corpus) -> list[list[str | None]]:
    """References as sacrebleu takes them: the first of each segment, then the second, ..."""
    depth = max(map(len, corpus.references))
    return [[r[i] if i < len(r) else None for r in corpus.references] for i in range(depth)]
