"""Whether methods differ by more than chance: seeds and test items are both drawn.

A method's score is the mean over its runs. What another draw of test items would change is measured
by the paired bootstrap (Koehn 2004): all runs are scored on the same resampled items. What another
seed would change is the variance between a method's runs. Both variances add up in the difference
of two methods, which is held against Student's t with the degrees of freedom of Welch and
Satterthwaite. The p-values of all pairs of a metric are corrected by Holm (1979).

With one run a method the seeds' variance is not known: the test then is of these two prompts on
other items, and says nothing of the methods.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from foreword.scoring.statistics import Floats

LEVEL = 0.95


@dataclass(frozen=True, eq=False)
class Scores:
    """What one method reached in one metric.

    Attributes:
        values: of its runs, `[runs]`.
        resampled: of its runs on resampled test items, `[runs, samples]`; the same items for all
            methods that are compared. None where the metric is not known item by item.
        items: how many test items there are.
    """

    values: Floats
    resampled: Floats | None = None
    items: int = 0

    @property
    def mean(self) -> float:
        """The mean over runs."""
        return float(self.values.mean())

    @property
    def spread(self) -> float | None:
        """The standard deviation over runs (of n - 1); None for one run."""
        return float(self.values.std(ddof=1)) if len(self.values) > 1 else None


@dataclass(frozen=True)
class Difference:
    """One method less another, in one metric.

    Attributes:
        first, second: the methods' names.
        value: first less second.
        interval: of 95 %, not corrected for other comparisons; None where nothing is known of
            chance.
        p: how often chance alone would make a difference as large, by Holm's correction over all
            pairs; None where nothing is known of chance.
        uncorrected: the same without the correction.
        runs: how many runs each of them has.
        better: "high" or "low".
    """

    first: str
    second: str
    value: float
    interval: tuple[float, float] | None
    p: float | None
    uncorrected: float | None
    runs: tuple[int, int]
    better: str = "high"

    @property
    def of_methods(self) -> bool:
        """Whether both have several runs, so that the test is of the methods."""
        return min(self.runs) > 1

    @property
    def more_than_chance(self) -> bool:
        """Whether the corrected p-value is below 0.05."""
        return self.p is not None and self.p < 1 - LEVEL

    @property
    def winner(self) -> str | None:
        """The better of the two; None where chance would do as much."""
        if not self.more_than_chance:
            return None
        return self.first if (self.value > 0) == (self.better == "high") else self.second

    def sentence(self, title: str, decimals: int, pairs: int) -> str:
        """The comparison in words.

        Args:
            title: of the metric.
            decimals: how many are shown.
            pairs: how many comparisons the p-value is corrected for.
        """
        ahead, behind = self.first, self.second
        value, interval = self.value, self.interval
        if (value > 0) != (self.better == "high"):
            ahead, behind, value = behind, ahead, -value
            interval = None if interval is None else (-interval[1], -interval[0])
        if value < 0 and interval is not None:  # of errors; the size is shown without its sign
            interval = (-interval[1], -interval[0])
        size = f"{abs(value):.{decimals}f} {title}"
        if self.p is None or interval is None:
            return (
                f"{ahead} is {size} ahead of {behind}; without several runs of both, or a score "
                "for each test item, nothing is known of chance."
            )
        low, high = sorted((interval[0], interval[1]))
        between = f"95 % interval {low:.{decimals}f} to {high:.{decimals}f}"
        corrected = f", corrected for {pairs} comparisons" if pairs > 1 else ""
        figures = f"({between}; {written_p(self.p)}{corrected})"
        if not self.of_methods:
            verdict = "more than" if self.more_than_chance else "no more than"
            return (
                f"{ahead}'s prompt is {size} ahead of {behind}'s, {verdict} other test items would "
                f"change {figures}; one seed says nothing of other seeds."
            )
        if self.more_than_chance:
            return f"{ahead} is {size} ahead of {behind}, more than chance {figures}."
        return f"{ahead} and {behind} are {size} apart, no more than chance {figures}."


def written_p(p: float) -> str:
    """A p-value as a text."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def differences(methods: Mapping[str, Scores], better: str = "high") -> list[Difference]:
    """Every pair of methods, the p-values corrected for there being so many pairs."""
    pairs = [
        _difference(first, second, methods[first], methods[second], better)
        for first, second in itertools.combinations(methods, 2)
    ]
    corrected = holm([one.uncorrected for one in pairs])
    return [replace(one, p=p) for one, p in zip(pairs, corrected, strict=True)]


def holm(values: Sequence[float | None]) -> list[float | None]:
    """Holm's correction (1979); None stays and is not counted."""
    known = sorted((p, i) for i, p in enumerate(values) if p is not None)
    corrected: list[float | None] = [None] * len(values)
    highest = 0.0
    for rank, (p, i) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * p))
        corrected[i] = highest
    return corrected


def _difference(first: str, second: str, a: Scores, b: Scores, better: str) -> Difference:
    value = a.mean - b.mean
    parts: list[tuple[float, int]] = []
    if a.resampled is not None and b.resampled is not None and a.items == b.items:
        by_items = a.resampled.mean(axis=0) - b.resampled.mean(axis=0)
        parts.append((float(by_items.var(ddof=1)), max(1, a.items - 1)))
    seeds = [scores.values for scores in (a, b) if len(scores.values) > 1]
    parts += [(float(one.var(ddof=1)) / len(one), len(one) - 1) for one in seeds]
    runs = (len(a.values), len(b.values))
    known = len(seeds) == 2 or (bool(parts) and max(runs) == 1)
    if not known:
        return Difference(first, second, value, None, None, None, runs, better)
    interval, p = _student(value, parts)
    return Difference(first, second, value, interval, p, p, runs, better)


def _student(value: float, parts: Sequence[tuple[float, int]]) -> tuple[tuple[float, float], float]:
    """Interval and two-sided p-value of a difference whose variance is a sum of estimates.

    Args:
        value: the difference.
        parts: variances and their degrees of freedom (Welch 1947, Satterthwaite 1946).
    """
    from scipy.stats import t

    variance = sum(part for part, _ in parts)
    if variance <= 0:
        return (value, value), (1.0 if value == 0 else 0.0)
    freedom = variance**2 / sum(part**2 / degrees for part, degrees in parts)
    error = math.sqrt(variance)
    margin = float(t.ppf((1 + LEVEL) / 2, freedom)) * error
    return (value - margin, value + margin), float(2 * t.sf(abs(value) / error, freedom))


@dataclass(frozen=True)
class Rank:
    """A method's place among all, 1 the best.

    Attributes:
        place: by the means.
        low, high: between which places it is in 95 % of draws of items and seeds.
    """

    place: int
    low: int
    high: int


def ranks(
    methods: Mapping[str, Scores], better: str = "high", *, draws: int = 2000, seed: int = 0
) -> dict[str, Rank]:
    """Places with intervals: test items are resampled, and seeds drawn from Student's t."""
    rng = np.random.default_rng(seed)
    sign = -1.0 if better == "high" else 1.0
    columns = []
    for scores in methods.values():
        count = len(scores.values)
        drawn = np.full(draws, scores.mean)
        if scores.resampled is not None:
            by_items = scores.resampled.mean(axis=0)
            drawn += np.resize(by_items - by_items.mean(), draws)
        if count > 1:
            error = scores.values.std(ddof=1) / math.sqrt(count)
            drawn += error * rng.standard_t(count - 1, size=draws)
        columns.append(sign * drawn)
    order = np.stack(columns).argsort(axis=0, kind="stable").argsort(axis=0, kind="stable") + 1
    by_mean = sorted(methods, key=lambda name: sign * methods[name].mean)
    low, high = np.quantile(order, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=1)
    return {
        name: Rank(by_mean.index(name) + 1, math.floor(low[i]), math.ceil(high[i]))
        for i, name in enumerate(methods)
    }
