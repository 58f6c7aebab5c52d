"""What a training's data cost before its first step: a first start, which reads and tokenises them,
and a second one, which finds them kept; beside a start that has all of them as Python objects.

    python bench/data.py --before HEAD~1 --out bench/results/data-cpu.json

The data are JSONL rows that the bench makes, each a sentence and its answer of about 75 and 30
characters. Each start is a process of its own, with the bundled backbone loaded before the clock
starts; what is measured is all that `foreword.runs` does then before it trains: reading, counting,
tokenising, and the order and hash of the first epoch. `--before` names a commit whose code, in a
git worktree, is started on the same rows where they are at most `--most-before`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
START = """
import json, os, resource, sys, threading, time
from foreword.backbone import load_backbone
from foreword.common.progress import Silent
from foreword.recipe import load_recipe
from foreword.runs.preparing import prepare
from foreword.training.amount import Amount
from foreword.training.batching import LengthBatches

recipe, backbone = load_recipe(sys.argv[1], []), load_backbone("foreword/mini", device="cpu")

def anonymous():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))

def processor():
    return sum(os.times()[:4])

peak = before = anonymous()
over = threading.Event()

def watch():
    global peak
    while not over.wait(0.02):
        peak = max(peak, anonymous())

watching = threading.Thread(target=watch)
watching.start()
seconds, spent = time.monotonic(), processor()
ready = prepare(recipe, "cpu", backbone, Silent())
pairs = ready.data.pairs
try:
    from foreword.backbone.stored_pairs import lengths
    own = lengths(pairs)
except ImportError:
    own = [pair.length for pair in pairs]
amount = Amount.of(recipe.training, pairs)
batches = LengthBatches(own, 8)
next(batches.steps())
hashed = batches.position(0)["order_sha256"]
seconds, spent = time.monotonic() - seconds, processor() - spent
over.set()
watching.join()
figures = {"seconds": seconds, "processor": spent, "bytes": 1024 * (peak - before)}
result = {"order": hashed, "amount": str(amount), "counted": ready.examples.counted}
print(json.dumps({**figures, **result}))
"""
ADJECTIVES = ("blue", "old", "quiet", "small", "north", "green", "bright", "cold")
NOUNS = ("house", "river", "market", "tower", "garden", "harbour", "school", "bridge")
PACKAGES = ("torch", "transformers", "tokenizers", "pyarrow", "numpy")
FIRST, SECOND, BEFORE = "first start", "second start", "before"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=3, help="second starts; default %(default)s")
    parser.add_argument("--before", help="a commit to measure beside this one")
    parser.add_argument("--most-before", type=int, default=100_000, help="default %(default)s")
    parser.add_argument("--out", type=Path, help="write the figures there, as JSON")
    options = parser.parse_args(arguments)
    starts: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        before = None if options.before is None else _checked_out(options.before, folder)
        try:
            for rows in options.rows:
                recipe = _recipe(folder, rows)
                ways = {FIRST: ROOT, **{f"{SECOND} {n}": ROOT for n in range(options.rounds)}}
                if before is not None and rows <= options.most_before:
                    ways[BEFORE] = before
                for way, code in ways.items():
                    figures = _start(recipe, folder / f"{rows}", code)
                    starts.append({"rows": rows, "start": way, **figures})
                    spent = f"{figures['seconds']:.1f} s, {figures['processor']:.1f} of a processor"
                    print(f"{rows:,} rows, {way}: {spent}", file=sys.stderr, flush=True)
                _check_same([start for start in starts if start["rows"] == rows])
        finally:
            if before is not None:
                _git("worktree", "remove", "--force", str(before))
    table = _table(starts)
    print("| rows | start | seconds | processor's | of the start before | memory, MB |")
    print("|--:|---|--:|--:|--:|--:|")
    for row in table:
        ratio = "" if row["of_before"] is None else f"{row['of_before']:.3f}"
        print(
            f"| {row['rows']:,} | {row['start']} | {row['seconds']:.2f} | {row['processor']:.2f} | "
            f"{ratio} | {row['megabytes']:,.0f} |"
        )
    if options.out is not None:
        made = {
            "python": platform.python_version(),
            "packages": {one: version(one) for one in PACKAGES},
            "processors": len(os.sched_getaffinity(0)),
            "command": "python bench/data.py " + " ".join(arguments or sys.argv[1:]),
            "before": options.before and _git("rev-parse", options.before),
            "starts": table,
        }
        options.out.write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")


def _recipe(folder: Path, rows: int) -> Path:
    """A recipe for so many rows, which are written beside it."""
    draw, data, dev = random.Random(0), folder / f"{rows}.jsonl", folder / "dev.jsonl"
    for file, count in ((data, rows), (dev, 100)):
        with file.open("w", encoding="utf-8") as handle:
            for number in range(count):
                names = [f"{draw.choice(ADJECTIVES)} {draw.choice(NOUNS)}" for _ in range(3)]
                text = f"{names[0]} number {number} stands near the {names[1]} and the {names[2]}"
                row = {"text": text, "references": [f"The {names[0]} is at {number}."]}
                handle.write(f"{json.dumps(row)}\n")
    recipe = {
        "version": 1,
        "name": "rows",
        "backbone": "foreword/mini",
        "task": {
            "data": {"format": "jsonl", "train": str(data), "dev": str(dev)},
            "input": "{text} ->",
            "target": " {reference}",
        },
        "method": {"name": "prefix-tuning", "length": 10},
        "training": {"steps": 2, "batch_size": 8},
    }
    file = folder / f"{rows}.yaml"
    file.write_text(json.dumps(recipe), encoding="utf-8")
    return file


def _start(recipe: Path, cache: Path, code: Path) -> dict[str, Any]:
    """What one start takes.

    Raises:
        RuntimeError: it fails.
    """
    environment = {**os.environ, "FOREWORD_CACHE": str(cache), "PYTHONPATH": str(code / "src")}
    command = [sys.executable, "-c", START, str(recipe)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{code}: {done.stderr[-2000:]}")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def _check_same(starts: Sequence[dict[str, Any]]) -> None:
    """Raise RuntimeError unless all starts on the same rows give the same order and counts."""
    for name in ("order", "amount", "counted"):
        if any(start[name] != starts[0][name] for start in starts):
            raise RuntimeError(f"the starts differ in {name}: {[s[name] for s in starts]}")


def _table(starts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A line for each number of rows and way to start, second starts by their median."""
    lines = []
    for rows in dict.fromkeys(start["rows"] for start in starts):
        own = [start for start in starts if start["rows"] == rows]
        before = next((s["processor"] for s in own if s["start"] == BEFORE), None)
        for way in (BEFORE, FIRST, SECOND):
            some = [start for start in own if start["start"].startswith(way)]
            if not some:
                continue
            middle = {
                name: statistics.median(start[name] for start in some)
                for name in ("seconds", "processor", "bytes")
            }
            lines.append(
                {
                    "rows": rows,
                    "start": way,
                    "seconds": round(middle["seconds"], 3),
                    "processor": round(middle["processor"], 3),
                    "of_before": None if before is None else round(middle["processor"] / before, 4),
                    "megabytes": round(middle["bytes"] / 1e6, 1),
                }
            )
    return lines


def _checked_out(commit: str, folder: Path) -> Path:
    place = folder / "before"
    _git("worktree", "add", "--detach", str(place), commit)
    return place


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


if __name__ == "__main__":
    main()
