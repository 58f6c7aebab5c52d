"""What every measure comes down to: a row of numbers per segment, and a function of their sum.

A mean over segments is (value, 1) per segment and sum[0] / sum[1]; BLEU is its n-gram counts. So
all measures are resampled in the same way, as one matrix product.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
_CELLS = 4_000_000
"""How many numbers of a matrix of resampling weights are held at a time."""


@dataclass(frozen=True, eq=False)
class Statistics:
    """A measure of a corpus, not yet summed.

    Attributes:
        segments: `[segments, k]`.
        combine: from sums over segments, `[..., k]`, to values, `[...]`.
    """

    segments: Floats
    combine: Callable[[Floats], Floats]

    @staticmethod
    def mean(values: Sequence[float] | Floats) -> Statistics:
        """The mean of a number per segment."""
        column = np.asarray(values, dtype=np.float64)
        return Statistics(
            np.stack([column, np.ones_like(column)], axis=-1), lambda s: s[..., 0] / s[..., 1]
        )

    def times(self, scale: float) -> Statistics:
        """The measure on another scale."""
        combine = self.combine
        return Statistics(self.segments, lambda sums: np.asarray(scale * combine(sums)))

    def value(self) -> float:
        """The measure of all segments together."""
        return float(self.combine(self.segments.sum(axis=0)))

    def interval(self, samples: int, seed: int, level: float = 0.95) -> tuple[float, float]:
        """Percentile bootstrap over segments (Efron 1979; for BLEU: Koehn 2004).

        Each sample draws as many segments as there are, with replacement. The same seed draws the
        same segments for every measure. The interval is widened to hold the value itself where
        percentiles of few segments would not.
        """
        count = len(self.segments)
        draws = np.random.default_rng(seed)
        step = max(1, _CELLS // count)
        combined = []
        for start in range(0, samples, step):
            size = min(step, samples - start)
            weights = draws.multinomial(count, np.full(count, 1 / count), size=size)
            combined.append(self.combine(weights.astype(np.float64) @ self.segments))
        tail = (1 - level) / 2
        low, high = np.quantile(np.concatenate(combined), [tail, 1 - tail])
        value = self.value()
        return min(float(low), value), max(float(high), value)
