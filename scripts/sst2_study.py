r"""Methods compared on SST-2 with a real encoder: several seeds each, one table.

    python scripts/sst2_study.py --data data/sst2/train.tsv --backbone models/minilm-l6 \
        --out runs/sst2

Each run is recipes/understanding/sst2.yaml with another method and seed. Finished runs are kept, so
the command can be given again; it ends with a table in Markdown, and `--json` writes the figures.

SST-2's training file holds the phrases of 6,885 sentences' parse trees: of 2,000 rows drawn from it
nine tenths stand inside a text that is left. What is measured on such rows is memory, too. So whole
sentences are held out, as many as GLUE's development set has, and every row that stands inside one
of them is left out of training; `--rows` holds out single rows instead.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from random import Random
from statistics import mean, stdev

import foreword
from foreword.common import files
from foreword.common.progress import PlainLog

METHODS: dict[str, list[str]] = {
    "P-Tuning v2, 20 virtual tokens": [],
    "Prompt Tuning, 20 virtual tokens": [
        "method={name: prompt-tuning, length: 20}",
        "training.learning_rate=0.01",
    ],
    "head only": ["method=head-only", "training.learning_rate=0.01"],
    "full fine-tuning, rate 2e-4": ["method=fine-tuning", "training.learning_rate=2e-4"],
}


HELD_OUT = 872
"""Sentences in GLUE's development set."""


def sentences_of(texts: Iterable[str]) -> list[str]:
    """The texts that stand inside no other, the longest first."""
    having: dict[str, set[int]] = {}
    found: list[str] = []
    for text in sorted(set(texts), key=lambda text: (-len(text), text)):
        within = set.intersection(*(having.get(word, set()) for word in text.split() or [""]))
        if any(f" {text} " in f" {found[i]} " for i in within):
            continue
        for word in text.split():
            having.setdefault(word, set()).add(len(found))
        found.append(text)
    return found


def split(data: Path, out: Path) -> tuple[Path, Path]:
    """Write the rows that stand inside no held-out sentence, and the held-out sentences."""
    header, *rows = data.read_text(encoding="utf-8").splitlines()
    texts = [row.split("\t")[0].strip() for row in rows]
    held = Random(0).sample(sentences_of(texts), HELD_OUT)
    inside = " | ".join(f" {sentence} " for sentence in held)
    chosen = set(held)
    parts = {
        "train.tsv": [r for r, t in zip(rows, texts, strict=True) if f" {t} " not in inside],
        "dev.tsv": [r for r, t in zip(rows, texts, strict=True) if t in chosen],
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, kept in parts.items():
        files.write_text(out / name, "\n".join([header, *kept]) + "\n")
    train, dev = (len(kept) for kept in parts.values())
    print(f"{dev} sentences held out, {train} rows left to train on", file=sys.stderr)
    return out / "train.tsv", out / "dev.tsv"


def main() -> int:
    """Run what is not there yet, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="SST-2's train.tsv")
    parser.add_argument("--backbone", type=Path, required=True, help="folder of the encoder")
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument(
        "--precision", default="float32", help="bfloat16 takes half the time where a CPU has it"
    )
    parser.add_argument("--only", type=int, nargs="*", help="numbers of methods, from 0")
    parser.add_argument("--rows", action="store_true", help="hold out rows instead of sentences")
    given = parser.parse_args()
    if given.rows:
        data = [f"task.data.train={given.data}"]
    else:
        train, dev = split(given.data, given.out)
        data = [f"task.data.train={train}", f"task.data.dev={dev}", "task.data.hold_out=null"]
    found: dict[str, list[float]] = {name: [] for name in METHODS}
    trained: dict[str, int] = {}
    for seed in range(given.seeds):
        for number, (name, overrides) in enumerate(METHODS.items()):
            if given.only is not None and number not in given.only:
                continue
            folder = given.out / f"{number}-{seed}"
            if not (folder / "metrics.json").exists():
                print(f"{name}, seed {seed}", file=sys.stderr, flush=True)
                foreword.train(
                    "recipes/understanding/sst2.yaml",
                    overrides=[
                        *data,
                        f"backbone={given.backbone}",
                        f"seed={seed}",
                        f"training.precision={given.precision}",
                        *overrides,
                    ],
                    out=folder,
                    resume=folder.exists(),
                    device="cpu",
                    progress=PlainLog(60),
                )
            metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
            found[name].append(metrics["prompt"]["all"]["accuracy"])
            trained[name] = metrics["training"]["trained_parameters"]
    print("| method | trained numbers | accuracy % | each seed |\n|---|---|---|---|")
    for name, figures in found.items():
        if not figures:
            continue
        spread = f" ± {stdev(figures):.1f}" if len(figures) > 1 else ""
        each = ", ".join(f"{figure:.1f}" for figure in figures)
        print(f"| {name} | {trained[name]:,} | {mean(figures):.1f}{spread} | {each} |")
    if given.json:
        rows = {
            name: {"trained": trained[name], "accuracy": figures}
            for name, figures in found.items()
            if figures
        }
        given.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
