"""What a run of a search may take at most."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from foreword.errors import UserError, did_you_mean

COSTS: dict[str, Callable[[Mapping[str, Any]], float]] = {
    "artifact_kb": lambda metrics: metrics["artifact_bytes"] / 1000,
    "trained_parameters": lambda metrics: metrics["training"]["trained_parameters"],
    "seconds": lambda metrics: metrics["seconds"]["all"],
}
"""What a constraint may bound -> how it is read off a run's figures."""


@dataclass(frozen=True)
class Constraint:
    """A bound on what a run takes.

    Attributes:
        name: a name in `COSTS`.
        most: what it must stay below.
    """

    name: str
    most: float

    @classmethod
    def parse(cls, text: str) -> Constraint:
        """From a text such as `artifact_kb < 200`.

        Raises:
            UserError: it is none.
        """
        number = r"(\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
        parts = re.fullmatch(rf"\s*(\w+)\s*<\s*({number})\s*", text)
        if parts is None:
            raise UserError(f"constraint {text!r}: expected NAME < NUMBER, as artifact_kb < 200")
        if parts[1] not in COSTS:
            known = f"; known are {', '.join(COSTS)}"
            raise UserError(
                f"constraint {text!r}: '{parts[1]}' is not known"
                f"{did_you_mean(parts[1], COSTS) or known}"
            )
        if not float(parts[2]):
            raise UserError(f"constraint {text!r}: nothing is below 0; give a number above it")
        return cls(parts[1], float(parts[2]))

    def excess(self, costs: Mapping[str, float]) -> float:
        """How much too much a run takes, as a share of the bound; below 0 where it fits.

        Args:
            costs: name -> what it takes (`costs_of`).
        """
        share = costs[self.name] / self.most - 1
        return share or 1e-9  # Optuna takes 0 for a fit, but the bound itself is none


def costs_of(metrics: Mapping[str, Any]) -> dict[str, float]:
    """What a run takes, from its figures."""
    return {name: read(metrics) for name, read in COSTS.items()}
