"""Finished runs that nothing was trained for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from foreword.comparing.measured import Measured
from foreword.recipe import load_recipe
from foreword.runs.record import Evaluation

QUICKSTART = Path(__file__).resolve().parents[2] / "recipes" / "quickstart.yaml"


def a_run(folder: Path, seed: int, score: float, **choices: str) -> Measured:
    """A run of the quickstart with one score."""
    recipe = load_recipe(QUICKSTART, [f"seed={seed}"])
    metrics = {
        "prompt": {"all": {"ter": score}},
        "split": "dev",
        "training": {},
        "artifact_bytes": 1000,
    }
    method = ", ".join(choices.values()) or "one"
    return Measured(method, choices, recipe, folder, metrics, [], [], {})


def evaluated(run: Measured, losses: Sequence[float], *overrides: str, **training: Any) -> Measured:
    """The run, with a loss on the development examples after every tenth step."""
    recipe = load_recipe(QUICKSTART, [f"seed={run.recipe.seed}", *overrides])
    evaluations = tuple(Evaluation(step=10 * i, loss=loss) for i, loss in enumerate(losses))
    return replace(
        run,
        recipe=recipe,
        evaluations=evaluations,
        metrics={**run.metrics, "training": training},
    )
