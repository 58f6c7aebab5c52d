"""How much a training is: optimizer steps, tokens, and the time that they take."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from foreword.backbone.layout import Pair
from foreword.backbone.stored_pairs import answers, lengths, longest
from foreword.recipe import TrainingSpec
from foreword.training.batching import LengthBatches

TIMED = 5
"""Steps from which the time of all is told; the first step, which warms up, is not among them."""
WORTH_TELLING = 10.0
"""Seconds from which a training's time is told beforehand."""


def total_steps(spec: TrainingSpec, rows: int) -> int:
    """Optimizer steps of a training on so many rows."""
    if spec.steps is not None:
        return spec.steps
    per_epoch = LengthBatches(range(rows), spec.batch_size, spec.accumulation).steps_per_epoch
    return max(1, round((spec.epochs or 1) * per_epoch))


def warmup_steps(spec: TrainingSpec, total: int) -> int:
    """How many of the steps the rate rises for."""
    return round(spec.warmup * total) if spec.warmup < 1 else round(spec.warmup)


@dataclass(frozen=True)
class Amount:
    """How much a training is, if nothing ends it early.

    Attributes:
        steps: optimizer steps.
        batch: rows of a step.
        rows: training rows.
        tokens: of all rows, sources and answers; virtual tokens are not counted.
        answers: tokens (or labels) that are predicted, of all rows.
        longest: tokens of the longest row.
    """

    steps: int
    batch: int
    rows: int
    tokens: int
    answers: int
    longest: int

    @classmethod
    def of(cls, spec: TrainingSpec, pairs: Sequence[Pair]) -> Amount:
        """Count the training rows, of which there is at least one."""
        return cls(
            total_steps(spec, len(pairs)),
            spec.batch_size * spec.accumulation,
            len(pairs),
            int(lengths(pairs).sum()),
            int(answers(pairs).sum()),
            longest(pairs),
        )

    @property
    def epochs(self) -> float:
        """Passes over the training rows."""
        return self.steps / -(-self.rows // self.batch)

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "steps": self.steps,
            "rows_per_step": self.batch,
            "rows": self.rows,
            "epochs": round(self.epochs, 3),
            "tokens": self.tokens,
            "predicted": self.answers,
            "longest_row": self.longest,
            "tokens_trained_on": round(self.tokens * self.epochs),
        }

    def __str__(self) -> str:
        return (
            f"training: {self.steps:,} steps of {self.batch:,} rows, {self.epochs:,.1f} epochs of "
            f"{self.rows:,} rows; an epoch has {self.tokens:,} tokens, of which {self.answers:,} "
            f"are predicted (longest row {self.longest:,}, virtual tokens not counted); about "
            f"{round(self.tokens * self.epochs):,} tokens in all"
        )


class Estimate:
    """Tells once, after the first steps, how long all of them will take.

    Args:
        steps: how many there are.
        clock: seconds from some moment on.
    """

    def __init__(self, steps: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.steps, self.clock = steps, clock
        self.done, self.seconds = 0, 0.0

    @contextmanager
    def step(self) -> Iterator[None]:
        """The time of one step."""
        begun = self.clock()
        yield
        spent = self.clock() - begun
        self.done += 1
        self.seconds += spent if self.done > 1 else 0.0

    @property
    def line(self) -> str | None:
        """What there is to say after this step: nothing after most steps."""
        if self.done != TIMED + 1:
            return None
        each = self.seconds / TIMED
        whole = each * self.steps
        if whole < WORTH_TELLING:
            return None
        return (
            f"{self.steps:,} training steps take about {_spelt(whole)} ({each:.2g} s each), "
            "evaluations not counted"
        )


def _spelt(seconds: float) -> str:
    """A time in two units at most."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} minutes"
    return f"{minutes // 60} h {minutes % 60} min"
