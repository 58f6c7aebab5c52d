"""What matters for a prefix on a small backbone: short runs on E2E that differ in one choice.

    python scripts/e2e_study.py --data data/e2e --out runs/study

Each run is recipes/e2e/mini.yaml with 800 steps of 8 and a prefix of 40 (unless its row says
otherwise), measured on the whole development set. Finished runs are kept, so the command can be
given again; it ends with a table in Markdown.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import foreword
from foreword.common.progress import PlainLog

BASE = [
    "method.length=40",
    "training.steps=800",
    "evaluation.backbone_alone=false",
    "evaluation.samples=0",
]
MLP = ["method.reparameterization=mlp", "method.init=random"]
RUNS: dict[str, list[str]] = {
    "as in the recipe": [],
    "the paper's settings: 10 tokens, MLP, random start, rate 8e-5, 5 epochs of 10": [
        *MLP,
        "method.length=10",
        "training.learning_rate=8e-5",
        "training.epochs=5",
        "training.batch_size=10",
        "training.warmup=0",
    ],
    "10 tokens, MLP, random start, rate 1e-3, 600 steps of 16": [
        *MLP,
        "method.length=10",
        "training.learning_rate=1e-3",
        "training.steps=600",
        "training.batch_size=16",
    ],
    "MLP, random start, rate 1e-3": [*MLP, "training.learning_rate=1e-3"],
    "MLP fitted to the activations, rate 1e-3": [
        "method.reparameterization=mlp",
        "training.learning_rate=1e-3",
    ],
    "random start": ["method.init=random", "method.reparameterization={kind: table, std: 0.5}"],
    "rate 0.01": ["training.learning_rate=0.01"],
    "rate 0.2": ["training.learning_rate=0.2"],
    "10 tokens": ["method.length=10"],
    "100 tokens": ["method.length=100"],
    "positions kept": ["method.positions=keep"],
    "loss summed over each sequence": ["training.loss=sequence_sum"],
}


def main() -> int:
    """Run what is not there yet, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="folder with the E2E files")
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs")
    given = parser.parse_args()
    files = [
        f"task.data.train={given.data / 'trainset.csv'}",
        f"task.data.dev={given.data / 'devset.csv'}",
    ]
    rows = []
    for number, (name, overrides) in enumerate(RUNS.items()):
        folder = given.out / f"{number:02d}"
        if not (folder / "metrics.json").exists():
            print(f"{number + 1}/{len(RUNS)}: {name}", file=sys.stderr, flush=True)
            foreword.train(
                "recipes/e2e/mini.yaml",
                overrides=[*files, *BASE, *overrides],
                out=folder,
                device="cpu",
                progress=PlainLog(60),
            )
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        scores, loss = metrics["prompt"]["all"], metrics["training"]["evaluations"][-1]["loss"]
        rows.append(
            f"| {name} | {loss:.3f} | {scores['bleu']:.1f} | {scores['slot_coverage']:.0f} |"
        )
    print("| run | dev loss | BLEU | slots % |\n|---|---|---|---|")
    print("\n".join(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
