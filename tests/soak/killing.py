"""Runs that are killed and gone on with, and what is compared afterwards."""

from __future__ import annotations

import json
import random
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from launching import Launcher

RECIPE = Path(__file__).parents[2] / "recipes" / "quickstart.yaml"

COMMON = {
    "backbone": "foreword/mini",
    "training.batch_size": 2,
    "task.limits.train": 24,
    "task.limits.dev": 3,
    "task.limits.test": 3,
    "decoding.max_new_tokens": 4,
    "method.length": 2,
    "evaluation.backbone_alone": False,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "table, each step saved": {
        "method.reparameterization": "table",
        "training.steps": 16,
        "training.evaluate_every": 5,
        "training.checkpoint_every": 1,
    },
    "MLP from real activations, in parts, best by sampled answers": {
        "method.reparameterization": {"kind": "mlp", "hidden": 16, "fit_steps": 10},
        "method.init": {"kind": "activations", "examples": 2},
        "training.learning_rate": 1e-3,
        "training.steps": 8,
        "training.accumulation": 2,
        "training.warmup": 0.2,
        "training.evaluate_every": 3,
        "training.best_by": "bleu",
        "training.checkpoint_every": 2,
        "decoding.do_sample": True,
    },
    "ended by patience": {
        "method.reparameterization": "table",
        "training.steps": 40,
        "training.learning_rate": 0.5,
        "training.weight_decay": 0.1,
        "training.schedule": "constant",
        "training.evaluate_every": 2,
        "training.patience": 3,
        "training.checkpoint_every": 2,
    },
}


def arguments(variant: dict[str, Any], *more: str) -> list[str]:
    """What comes after `foreword`."""
    settings = {**COMMON, **variant}
    sets = [part for k, v in settings.items() for part in ("--set", f"{k}={json.dumps(v)}")]
    return ["train", str(RECIPE), "--device", "cpu", "--out", "run", *sets, *more]


def outcome(folder: Path) -> dict[str, Any]:
    """All that must be the same: tensors, log, answers and figures, times left out."""
    run = folder / "run"
    last = (run / "checkpoints" / "latest").read_text(encoding="utf-8").strip()
    state = json.loads((run / "checkpoints" / last / "checkpoint.json").read_text("utf-8"))
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    del metrics["seconds"], metrics["training"]["resumed_at"], metrics["artifact_bytes"]
    return {
        "artifact": (run / "artifact" / "prompt.safetensors").read_bytes(),
        "state": (run / "checkpoints" / last / "state.safetensors").read_bytes(),
        "step": state["step"],
        "best": state["best"],
        "log": (run / "log.jsonl").read_bytes(),
        "answers": (run / "answers.jsonl").read_bytes(),
        "metrics": metrics,
    }


def where(folder: Path, last: int) -> str:
    """What a killed run of `last` steps was at, as far as its folder tells."""
    run = folder / "run"
    if not (run / "recipe.yaml").exists():
        return "before the run folder"
    if (run / "metrics.json").exists():
        return "after the figures"
    names = [p.name for p in (run / "checkpoints").glob("*")]
    if any(name.startswith(".") for name in names):
        return "in the writing of a checkpoint"
    if "latest" not in names:
        return "before the first checkpoint"
    pointed = (run / "checkpoints" / "latest").read_text(encoding="utf-8")
    if (run / "artifact").exists():
        return "writing the results"
    return "measuring" if int(pointed.split("-")[1]) == last else "training"


def kill_until_done(
    launcher: Launcher,
    folder: Path,
    words: list[str],
    delays: Iterator[float],
    last: int,
    places: Counter[str],
    most: int,
) -> int:
    """Start, kill, go on, until the run is done or was killed `most` times; returns how often."""
    kills = 0
    while kills < most:
        started = launcher.start(folder, [*words, "--resume"], keep=True)
        if started.wait(next(delays)):
            assert started.end() == 0, started.printed()
            return kills
        status = started.end(signal.SIGKILL)
        if status != -signal.SIGKILL:
            assert status == 0, started.printed()
            return kills
        kills += 1
        places[where(folder, last)] += 1
    launcher.run(folder, [*words, "--resume"], keep=True)
    return kills


def moments(seed: int, longest: float) -> Iterator[float]:
    """Random delays before a kill."""
    draw = random.Random(seed)
    while True:
        yield draw.uniform(0.0, longest)
