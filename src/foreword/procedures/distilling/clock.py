"""How much of a budget of time is spent, over all parts of a run that was stopped and went on."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from foreword.backbone.layout import Pair
from foreword.common import files, opening
from foreword.common.json_text import parse_json
from foreword.recipe import TrainingSpec
from foreword.tuned import TunedModel


class Clock:
    """Counts the seconds of a run, and keeps what was settled by them.

    Args:
        file: JSON, where both are kept.
        budget: in seconds; None: any time.
    """

    def __init__(self, file: Path, budget: float | None) -> None:
        self.file, self.budget = file, budget
        self.began = time.monotonic()
        self.kept: dict[str, Any] = _read(file)
        self.before = float(self.kept.get("seconds", 0.0))

    @property
    def spent(self) -> float:
        """Seconds so far."""
        return self.before + time.monotonic() - self.began

    def left(self, share: float = 1.0) -> float | None:
        """Seconds that are left of a share of the budget; None: any number."""
        return None if self.budget is None else max(0.0, share * self.budget - self.spent)

    def keep(self, **settled: Any) -> None:
        """Write down how much is spent, and what was settled."""
        if self.budget is not None:
            self.kept |= {"seconds": round(self.spent, 2), **settled}
            files.write_text(self.file, json.dumps(self.kept) + "\n")


def _read(file: Path) -> dict[str, Any]:
    try:
        kept = parse_json(opening.read_text(file, within=file.parent))
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}


def seconds_of_a_step(model: TunedModel, pairs: Sequence[Pair], spec: TrainingSpec) -> float:
    """How long an optimizer step takes, by the second of two on rows of middle length."""
    order = sorted(pairs, key=lambda pair: pair.length)
    middle = max(0, len(order) // 2 - spec.batch_size // 2)
    rows = order[middle : middle + spec.batch_size]
    seconds = 0.0
    for _ in range(2):
        began = time.monotonic()
        model(model.lay_out(rows)).mean().backward()
        seconds = time.monotonic() - began
        model.zero_grad(set_to_none=True)
    return max(1e-6, seconds * spec.accumulation)
