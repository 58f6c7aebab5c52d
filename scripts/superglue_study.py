"""SuperGLUE's tasks with 32 examples each, on real backbones, with several seeds.

    python scripts/superglue_study.py --data data/fewglue --out runs/superglue \
        --backbone SmolLM2-135M-instruct=models/smollm2-135m-instruct \
        --backbone flan-t5-small-title=models/flan-t5-small-title \
        --json bench/results/superglue.json

Each run is a recipe of recipes/superglue/ as it stands, measured on SuperGLUE's development set.
What stands in the JSON file already is not run again.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import foreword
from foreword.common import files
from foreword.common.progress import PlainLog

RECIPES = Path(__file__).resolve().parents[1] / "recipes" / "superglue"
TASKS = {"copa": "COPA", "cb": "CB", "wic": "WiC", "boolq": "BoolQ", "multirc": "MultiRC"}
SPLITS = {"train": "train.jsonl", "dev": "dev32.jsonl", "test": "val.jsonl"}
Figures = dict[str, dict[str, dict[str, Any]]]
"""Backbone -> task -> figures: of the backbone alone, and of each seed."""


def run(task: str, seed: int, backbone: Path, data: Path, out: Path, more: list[str]) -> Any:
    """One run's metrics."""
    overrides = [f"task.data.{split}={data / TASKS[task] / file}" for split, file in SPLITS.items()]
    overrides += [f"backbone.name={backbone}", f"seed={seed}", *more]
    done = foreword.train(
        RECIPES / f"{task}.yaml", overrides=overrides, out=out, progress=PlainLog()
    )
    return done.metrics


def rows(figures: Figures) -> list[str]:
    """The table, in Markdown."""
    found = [
        "| backbone | task | metric | alone | trained | each seed |",
        "|---|---|---|---|---|---|",
    ]
    for backbone, tasks in figures.items():
        for task, kept in tasks.items():
            seeds = [kept["seeds"][seed] for seed in sorted(kept["seeds"])]
            for metric in seeds[0]:
                values = [one[metric] for one in seeds]
                alone = kept["alone"].get(metric)
                said = "–" if alone is None else f"{alone:.1f}"
                spread = f"{fmean(values):.1f} ± {pstdev(values):.1f}"
                each = ", ".join(f"{value:.1f}" for value in values)
                found.append(
                    f"| {backbone} | {TASKS[task]} | {metric} | {said} | {spread} | {each} |"
                )
    return found


def main(arguments: list[str] | None = None) -> int:
    """Run what is missing, write the figures, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with COPA/, CB/, ...")
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--json", type=Path, required=True, help="where the figures stand")
    parser.add_argument("--backbone", action="append", required=True, metavar="NAME=FOLDER")
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--set", action="append", default=[], metavar="KEY.PATH=VALUE")
    given = parser.parse_args(arguments)
    figures: Figures = json.loads(given.json.read_text("utf-8")) if given.json.exists() else {}
    for name, _, folder in (one.partition("=") for one in given.backbone):
        for task in given.tasks:
            kept = figures.setdefault(name, {}).setdefault(task, {"alone": {}, "seeds": {}})
            for seed in given.seeds:
                if str(seed) in kept["seeds"]:
                    continue
                out = given.out / f"{name}-{task}-{seed}"
                found = run(task, seed, Path(folder).resolve(), given.data, out, given.set)
                kept["seeds"][str(seed)] = found["prompt"]["all"]
                kept["alone"] = found.get("backbone", {}).get("all", kept["alone"])
                kept["trained_parameters"] = found["training"]["trained_parameters"]
                files.write_text(given.json, json.dumps(figures, indent=2) + "\n")
    print("\n".join(rows(figures)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
