"""Time of reading answers whose rows begin alike: the beginning read once, and in every row.

    python bench/beginnings.py

Rows of random tokens on `foreword/mini`'s weights with a prefix of 10: passages of 150 tokens,
questions of 12 under each, answers of 8 under each of those, in batches of 32. A figure is the
median over rounds of the processor time with beginnings read once, divided by that of the same rows
read whole in the same round.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from pathlib import Path

import torch

from foreword.backbone import Backbone, Call, Prompt, PromptKeyValues, beginnings, load_backbone
from foreword.backbone.layout import Layout

CASES = {
    "10 questions of 5 answers under a passage": (10, 5, 150),
    "5 answers to a question with its passage": (1, 5, 150),
    "rows with 400 tokens of examples before them": (8, 1, 400),
    "rows with nothing in common": (1, 1, 150),
}
ROWS, PREFIX = 96, 10


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    torch.set_num_threads(1)
    backbone = load_backbone("foreword/mini", dtype="float32", device="cpu")
    figures = {}
    for name, (questions, answers, passage) in CASES.items():
        ratios = [round_(backbone, questions, answers, passage) for _ in range(given.rounds)]
        figures[name] = {"median": statistics.median(ratios), "rounds": ratios}
        print(f"{name:48}{figures[name]['median']:.2f}  ({min(ratios):.2f} to {max(ratios):.2f})")
    document = {"command": "python bench/beginnings.py", "threads": 1, "ratios": figures}
    file = given.out / "beginnings-cpu.json"
    file.write_text(json.dumps(document, indent=2) + "\n")


def round_(backbone: Backbone, questions: int, answers: int, passage: int) -> float:
    """Time with beginnings read once, divided by time without."""
    draw = random.Random(passage)

    def text(tokens: int) -> list[int]:
        return [draw.randrange(10, 8000) for _ in range(tokens)]

    rows: list[list[int]] = []
    while len(rows) < ROWS:
        front = text(passage)
        for _ in range(questions):
            question = text(12)
            rows += [[*front, *question, *text(8)] for _ in range(answers)]
    batches = [Layout.of(rows[at : at + 32], virtual=PREFIX) for at in range(0, ROWS, 32)]
    g = backbone.geometry
    shape = g.main.layers, PREFIX, g.main.heads[0].kv_heads, g.main.heads[0].key_dim
    prompt = Prompt({"decoder": PromptKeyValues(torch.randn(shape), torch.randn(shape))})
    times = dict.fromkeys((beginnings.WORTH, 2.0), 0.0)
    for layout in batches:
        ends = layout.attention_mask.sum(1) - 1
        at = torch.arange(layout.rows) * layout.input_ids.shape[1] + ends
        answered = []
        for worth in times:
            start = time.process_time()
            with torch.no_grad():
                beginnings.WORTH, usual = worth, beginnings.WORTH
                call, reading = beginnings.read_once(backbone, Call(layout, prompt), at)
                beginnings.WORTH = usual
                answered.append(backbone.logits(call, reading))
            times[worth] += time.process_time() - start
        assert torch.allclose(*answered, atol=1e-4)
    once, whole = times.values()
    return once / whole


if __name__ == "__main__":
    main()
