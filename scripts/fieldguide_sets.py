"""Sets for further kinds of tasks, made of the bundled field guide.

    python scripts/fieldguide_sets.py --out data/fieldguide-sets

For each split of the field guide three JSONL files: what a description tells (`labels-train.jsonl`,
any number of labels a row), how many facts it tells (`numbers-train.jsonl`, a number), and which of
four descriptions of the same type of thing is that of a record (`choices-train.jsonl`). The same
seed makes the same files.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from foreword.common import files
from foreword.data.lines import json_row, text_lines
from foreword.data.sources import data_file

SPLITS = ("train", "dev", "test")
TOLD = ("colour", "food", "habitat", "markings", "near", "rarity", "season", "size", "smell")
"""The keys of records that are labels: those that stand often enough."""
CHOICES = 4
Rows = list[dict[str, Any]]


def read(split: str) -> Rows:
    """The records of a split, with their descriptions."""
    lines = text_lines(data_file(f"foreword/fieldguide/{split}"))
    return [json_row(split, line) for _, line in lines]


def labels(rows: Rows) -> Iterator[dict[str, Any]]:
    """Each description with the keys that it tells."""
    for row in rows:
        attributes = [key for key in TOLD if key in row["record"]]
        yield from ({"text": text, "tells": attributes} for text in row["references"])


def numbers(rows: Rows) -> Iterator[dict[str, Any]]:
    """Each description with the number of facts that it tells beside the name."""
    for row in rows:
        facts = len(row["record"]) - 1
        yield from ({"text": text, "facts": facts} for text in row["references"])


def choices(rows: Rows, chance: random.Random) -> Iterator[dict[str, Any]]:
    """Each record with one description of it and three of others of its type, named alike."""
    by_type: dict[str, Rows] = {}
    for row in rows:
        by_type.setdefault(row["category"], []).append(row)
    for row in rows:
        others = [other for other in by_type[row["category"]] if other is not row]
        if len(others) < CHOICES - 1:
            continue
        named = row["record"]["name"]
        texts = [
            chance.choice(other["references"]).replace(other["record"]["name"], named)
            for other in chance.sample(others, CHOICES - 1)
        ]
        right = chance.randrange(CHOICES)
        texts.insert(right, chance.choice(row["references"]))
        if len(set(texts)) == CHOICES:
            yield {"record": row["record"], "descriptions": texts, "right": right}


def main(arguments: list[str] | None = None) -> int:
    """Write the files; 0 when it is done."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        rows = read(split)
        chance = random.Random(f"{given.seed}/{split}")
        made = {"labels": labels(rows), "numbers": numbers(rows), "choices": choices(rows, chance)}
        for name, records in made.items():
            lines = [json.dumps(row, ensure_ascii=False) for row in records]
            files.write_text(given.out / f"{name}-{split}.jsonl", "\n".join(lines) + "\n")
            print(f"{given.out / f'{name}-{split}.jsonl'}: {len(lines):,} rows", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
