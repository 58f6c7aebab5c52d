"""Any outputs against any references, as the E2E challenge's official tool scores them.

Knows nothing about models: no torch. `docs/metrics.md` says what each figure is.
"""

from foreword.scoring.corpus import Corpus
from foreword.scoring.java import Unavailable
from foreword.scoring.measures import MEASURES, OFFICIAL, Measure, Scores, score
from foreword.scoring.reading import read_pairs
from foreword.scoring.statistics import Statistics

__all__ = [
    "MEASURES",
    "OFFICIAL",
    "Corpus",
    "Measure",
    "Scores",
    "Statistics",
    "Unavailable",
    "read_pairs",
    "score",
]
