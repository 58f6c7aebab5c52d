"""WebNLG 2017 on a small budget, seen and unseen categories apart.

    python scripts/webnlg_study.py --data data/webnlg2017 --out runs/webnlg

The test file with the corpus's own unseen categories may not be at hand: two of the training
categories are left out of training instead, and the development set is measured by category.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import foreword
from foreword.common.progress import PlainLog
from foreword.data import Example
from foreword.evaluation import METRICS

UNSEEN = ("Food", "WrittenWork")
MEASURED = ("bleu", "chrf", "ter")
SETTINGS = [
    "backbone=foreword/mini",
    "task.data.test=null",
    "task.data.group=category",
    "task.truncate=triples",
    "task.metrics=[bleu, chrf, ter]",
    "method={name: prefix-tuning, length: 40, reparameterization: table,"
    " init: {kind: activations, examples: 8}}",
    "training.batch_size=8",
    "training.learning_rate=0.1",
    "decoding={max_new_tokens: 60}",
]


def left_out(data: Path, out: Path) -> Path:
    """A folder of links to the training files of the other categories."""
    folder = out / "train"
    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted((data / "train").glob("**/*.xml")):
        link = folder / f"{file.parent.name}-{file.name}"
        if not any(f"_{name}_" in file.name for name in UNSEEN) and not link.exists():
            link.symlink_to(file.resolve())
    return folder


def main() -> int:
    """Run, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and dev/")
    parser.add_argument("--out", type=Path, required=True, help="folder for the run")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--json", type=Path, help="write the figures there")
    given = parser.parse_args()
    run = foreword.train(
        "recipes/generation/webnlg.yaml",
        overrides=[
            f"task.data.train={left_out(given.data, given.out)}",
            f"task.data.dev={given.data / 'dev'}",
            *SETTINGS,
            f"training.steps={given.steps}",
        ],
        out=given.out / "run",
        resume=(given.out / "run").exists(),
        device="cpu",
        progress=PlainLog(60),
    )
    text = (run.folder / "answers.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    parts = {
        "seen": [row for row in rows if row["group"] not in UNSEEN],
        "unseen": [row for row in rows if row["group"] in UNSEEN],
        "all": rows,
    }
    figures = {
        name: {
            "records": len(part),
            **{
                metric: METRICS[metric].score(
                    [row["output"] for row in part],
                    [Example({}, tuple(row["references"])) for row in part],
                )
                for metric in MEASURED
            },
        }
        for name, part in parts.items()
    }
    print("| categories | records | BLEU | chrF | TER |\n|---|---|---|---|---|")
    for name, row in figures.items():
        print(f"| {name} | {row['records']} |", end=" ")
        print(" | ".join(f"{row[metric]:.1f}" for metric in MEASURED), "|")
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
