r"""PET with 32 labelled examples, several seeds, beside what it is made of.

    python scripts/pet_study.py sst2 --data data/sst2/train.tsv --out runs/pet
    python scripts/pet_study.py chnsenticorp --data data/chnsenticorp/ChnSentiCorp_htl_all.csv \
        --out runs/pet-zh

Of SST-2 whole sentences are held out, as in scripts/sst2_study.py; of ChnSentiCorp what its recipe
holds out with seed 0, which foreword/mini-mlm-zh has not read. The labelled examples are drawn by
the seed. Finished runs are kept.
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
from foreword.common import files
from foreword.common.progress import PlainLog
from foreword.recipe import load_recipe
from foreword.runs.data import read_examples

ROWS = ("classifier on the labelled alone", "patterns' models, mean", "all together", "PET")


def parted(recipe: Path, data: Path, out: Path) -> tuple[Path, Path]:
    """Write what a recipe trains on, and what it holds out, with its own seed."""
    drawn = read_examples(load_recipe(recipe, [f"task.data.train={data}", "task.limits={}"]))
    out.mkdir(parents=True, exist_ok=True)
    for name, examples in (("train.jsonl", drawn.train), ("dev.jsonl", drawn.dev)):
        rows = [{**example.fields, "label": example.label} for example in examples]
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        files.write_text(out / name, "\n".join(lines) + "\n")
    print(f"{len(drawn.dev)} held out, {len(drawn.train)} left to train on", file=sys.stderr)
    return out / "train.jsonl", out / "dev.jsonl"


def run(recipe: Path, out: Path, overrides: list[str]) -> dict[str, Any]:
    """A run's figures, or those of the finished one."""
    done = foreword.train(
        recipe,
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
    parser.add_argument("task", choices=["sst2", "chnsenticorp"])
    parser.add_argument("--data", type=Path, required=True, help="its file")
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--json", type=Path, help="write the figures there")
    given = parser.parse_args()
    recipe = Path("recipes") / "understanding" / f"{given.task}-pet.yaml"
    if given.task == "sst2":
        train, dev = split(given.data, given.out)
    else:
        train, dev = parted(recipe, given.data.resolve(), given.out)
    found: dict[str, list[float]] = {name: [] for name in ROWS}
    for seed in given.seeds:
        common = [
            f"task.data.format={train.suffix[1:]}",
            f"task.data.train={train.resolve()}",
            f"task.data.dev={dev.resolve()}",
            "task.data.hold_out=null",
            f"seed={seed}",
            f"training.precision={given.precision}",
        ]
        alone = run(recipe, given.out / f"alone-{seed}", [*common, "method=fine-tuning"])
        pet = run(recipe, given.out / f"pet-{seed}", common)
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
