"""What a run took, beside what it reached. No torch."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from foreword.common import files, opening
from foreword.common.json_text import parse_json
from foreword.names import LOSS, METRICS

COST = "cost.json"
SHARE = 0.95


@dataclass
class Cost:
    """Of one run in a comparison.

    Attributes:
        seconds: of all work on the run, that of parts that were stopped, too.
        peak_bytes: most memory beyond what was there before it, the shared backbone's not counted.
    """

    seconds: float = 0.0
    peak_bytes: int = 0


def add_cost(folder: Path, cost: Cost) -> None:
    """Keep it in the run folder, beside what earlier parts of the run took."""
    before = read_cost(folder) or Cost()
    whole = Cost(before.seconds + cost.seconds, max(before.peak_bytes, cost.peak_bytes))
    files.write_text(folder / COST, json.dumps(asdict(whole)) + "\n")


def read_cost(folder: Path) -> Cost | None:
    """It again; None where a run was not measured so, or the file is damaged."""
    try:
        raw = parse_json(opening.read_text(folder / COST, within=folder, most=2**16))
        return Cost(float(raw["seconds"]), int(raw["peak_bytes"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def steps_to_share(
    evaluations: Sequence[Mapping[str, Any]], metric: str, share: float = SHARE
) -> int | None:
    """After how many steps a training had most of what it gained.

    Args:
        evaluations: `{"step", metric, …}` during training, in order.
        metric: which is looked at, a name in `METRICS` or `loss`.
        share: of the way from the first value to the best one.

    Returns:
        The step; None where fewer than two evaluations have a finite value of the metric.
    """
    low = metric == LOSS or METRICS[metric].better == "low"
    sign = -1.0 if low else 1.0
    known = [
        (int(e["step"]), sign * float(e[metric])) for e in evaluations if e.get(metric) is not None
    ]
    known = [(step, value) for step, value in known if math.isfinite(value)]
    if len(known) < 2:
        return None
    first, best = known[0][1], max(value for _, value in known)
    enough = first + share * (best - first)
    return next((step for step, value in known if value >= enough), None)
