"""Twelve small runs as one grid, and as twelve `foreword train` commands.

    python bench/comparing.py --clock cpu --out bench/results/comparing-cpu.json

Both run the same recipes one after the other, in processes of one thread. The figure is the grid's
time divided by the sum of the twelve commands' times. With `--clock cpu` the time is that which the
processes computed, on a machine that does other work too.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from foreword.artifacts.manifest import versions
from foreword.comparing import load_grid

ROOT = Path(__file__).resolve().parents[1]
LENGTHS, SEEDS = [1, 5, 10, 20], [0, 1, 2]
CLOCKS = ("wall", "cpu")


def grid_file(folder: Path, steps: int, items: int) -> Path:
    """The grid: four prefix lengths with three seeds each, on the bundled task."""
    grid = {
        "version": 1,
        "name": "small",
        "recipe": str(ROOT / "recipes" / "quickstart.yaml"),
        "set": {
            "training.steps": steps,
            "training.evaluate_every": None,
            "task.limits": {"train": 500, "dev": items, "test": items},
            "evaluation.backbone_alone": False,
            "evaluation.samples": 0,
        },
        "seeds": SEEDS,
        "grid": {"method.length": LENGTHS},
    }
    file = folder / "grid.yaml"
    file.write_text(yaml.safe_dump(grid), encoding="utf-8")
    return file


def timed(arguments: list[str]) -> dict[str, float]:
    """Wall and CPU seconds of a foreword command, its children included."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    before, started = os.times(), time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "foreword", *arguments],
        check=True,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    after = os.times()
    spent = sum(
        getattr(after, name) - getattr(before, name)
        for name in ("children_user", "children_system")
    )
    return {"wall": time.perf_counter() - started, "cpu": spent}


def main() -> int:
    """Measure, print the ratio, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=20, help="of each run")
    parser.add_argument("--items", type=int, default=16, help="development and test examples")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="which time is compared")
    parser.add_argument("--out", type=Path, help="write the figures there")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = grid_file(folder, given.steps, given.items)
        _, cells = load_grid(file)
        alone = []
        for number, cell in enumerate(cells):
            recipe = folder / f"{number}.yaml"
            recipe.write_text(cell.recipe.to_yaml(), encoding="utf-8")
            out = str(folder / f"alone-{number}")
            alone.append(timed(["train", str(recipe), "--out", out, "--device", "cpu"]))
        options = ["--workers", "1", "--device", "cpu", "--out", str(folder / "grid")]
        together = timed(["compare", str(file), *options])
        answers = [
            next(
                (folder / "grid" / "runs").glob(
                    f"length-{c.recipe.method.length}-seed-{c.recipe.seed}-*"
                )
            )
            / "answers.jsonl"
            for c in cells
        ]
        same = all(
            file.read_bytes() == (folder / f"alone-{i}" / "answers.jsonl").read_bytes()
            for i, file in enumerate(answers)
        )
    clock = given.clock
    ratio = together[clock] / sum(one[clock] for one in alone)
    figures = {
        "command": f"python bench/comparing.py {shlex.join(sys.argv[1:])}",
        "versions": versions(),
        "clock": clock,
        "runs": len(cells),
        "steps": given.steps,
        "ratio": round(ratio, 3),
        "same_answers": same,
    }
    print(json.dumps(figures, indent=2))
    if given.out is not None:
        given.out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
