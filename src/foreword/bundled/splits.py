"""Generated data as files: a JSONL file for each split."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Build = Callable[[int], Mapping[str, Sequence[Mapping[str, Any]]]]
"""From a seed to the rows of each split."""


def write_splits(splits: Mapping[str, Sequence[Mapping[str, Any]]], folder: Path) -> list[Path]:
    """Write `SPLIT.jsonl` for each split, and give the files' paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for split, rows in splits.items():
        path = folder / f"{split}.jsonl"
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        path.write_bytes(text.encode("utf-8"))
        paths.append(path)
    return paths


def run(
    argv: Sequence[str] | None, description: str, build: Build, *, folder: Path, seed: int
) -> int:
    """The command line of a generator: write the files and name them.

    Args:
        argv: its arguments; those of the process if None.
        description: what is written.
        build: makes the rows.
        folder: where they go if no other is named.
        seed: if no other is given.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("out_dir", nargs="?", type=Path, default=folder)
    parser.add_argument("--seed", type=int, default=seed)
    given = parser.parse_args(argv)
    for path in write_splits(build(given.seed), given.out_dir):
        print(path)
    return 0
