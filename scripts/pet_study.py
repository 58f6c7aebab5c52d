r"""PET on SST-2 with 32 labelled examples, several seeds, beside what it is made of.

    python scripts/pet_study.py --data data/sst2/train.tsv --out runs/pet

Whole sentences are held out, as in scripts/sst2_study.py; the labelled examples are drawn by the
seed. Finished runs are kept.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from sst2_study import split

import foreword
from foreword.progress import PlainLog

RECIPE = "recipes/understanding/sst2-pet.yaml"
ROWS = ("classifier on the labelled alone", "patterns' models, mean", "all together", "PET")


def run(out: Path, overrides: list[str]) -> dict[str, Any]:
    """A run's figures, or those of the finished one."""
    done = foreword.train(
        RECIPE,
        overrides=overrides,
        out=out,
        resume=out.exists(),
        device="cpu",
        progress=PlainLog(60),
    )
    return done.metrics


def main() -> int:
    """Run what is not there yet, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="SST-2's train.tsv")
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--json", type=Path, help="write the figures there")
    given = parser.parse_args()
    train, dev = split(given.data, given.out)
    found: dict[str, list[float]] = {name: [] for name in ROWS}
    for seed in given.seeds:
        common = [
            f"task.data.train={train}",
            f"task.data.dev={dev}",
            "task.data.hold_out=null",
            f"seed={seed}",
            f"training.precision={given.precision}",
        ]
        alone = run(given.out / f"alone-{seed}", [*common, "method=fine-tuning"])
        pet = run(given.out / f"pet-{seed}", common)
        figures = (
            alone["prompt"]["all"]["accuracy"],
            mean(row["accuracy"] for row in pet["pet"]["patterns"]),
            pet["pet"]["ensemble_accuracy"],
            pet["prompt"]["all"]["accuracy"],
        )
        for name, figure in zip(ROWS, figures, strict=True):
            found[name].append(figure)
    print("| | accuracy % | each seed |\n|---|---|---|")
    for name, values in found.items():
        spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
        each = ", ".join(f"{value:.1f}" for value in values)
        print(f"| {name} | {mean(values):.1f}{spread} | {each} |")
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
