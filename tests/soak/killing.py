"""Runs that are killed and gone on with, and what is compared afterwards."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RECIPE = HERE.parents[1] / "recipes" / "quickstart.yaml"

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


@dataclass
class Started:
    """A command under way: its number, and its status when it is over."""

    number: int
    over: threading.Event = field(default_factory=threading.Event)
    status: int | None = None

    def wait(self, seconds: float) -> bool:
        """Whether it was over by then."""
        return self.over.wait(seconds)

    def end(self, how: signal.Signals) -> int:
        """Send a signal, wait, and give the status."""
        os.kill(self.number, how)
        assert self.wait(60), "it did not end"
        assert self.status is not None
        return self.status


class Launcher:
    """Starts commands by `launcher.py`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert self._line() == "ready"

    def start(self, folder: Path, words: list[str], *, keep: bool = True) -> Started:
        """Start a command in a folder; one at a time."""
        assert self.process.stdin is not None
        request = {"arguments": words, "folder": str(folder), "keep": keep}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        started = Started(int(self._line()))

        def wait() -> None:
            started.status = int(self._line())
            started.over.set()

        threading.Thread(target=wait, daemon=True).start()
        return started

    def run(self, folder: Path, words: list[str]) -> float:
        """Run a command to its good end; returns the seconds it took."""
        begun = time.monotonic()
        started = self.start(folder, words)
        assert started.wait(120), "it did not end"
        assert started.status == 0, printed(folder)
        return time.monotonic() - begun

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


@contextmanager
def launcher() -> Iterator[Launcher]:
    """A launcher with one thread, as a run of its own would have under OMP_NUM_THREADS=1."""
    process = subprocess.Popen(
        [sys.executable, str(HERE / "launcher.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )
    try:
        with process:
            yield Launcher(process)
            assert process.stdin is not None
            process.stdin.close()
    finally:
        process.kill()


def printed(folder: Path) -> str:
    """The end of what the commands in a folder printed."""
    return (folder / "printed.txt").read_text(encoding="utf-8")[-3000:]


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
        started = launcher.start(folder, [*words, "--resume"])
        if started.wait(next(delays)):
            assert started.status == 0, printed(folder)
            return kills
        status = started.end(signal.SIGKILL)
        if status != -signal.SIGKILL:
            assert status == 0, printed(folder)
            return kills
        kills += 1
        places[where(folder, last)] += 1
    launcher.run(folder, [*words, "--resume"])
    return kills


def moments(seed: int, longest: float) -> Iterator[float]:
    """Random delays before a kill."""
    draw = random.Random(seed)
    while True:
        yield draw.uniform(0.0, longest)
