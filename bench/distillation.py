"""What a text costs a request: in the context, kept as keys and values, or as P virtual tokens.

    python bench/distillation.py --backbone models/smollm2-135m-instruct
    python bench/distillation.py --lengths 16,64 --rounds 5      # the bundled backbone

Time is from the question to its first token's logits, as a ratio to the question alone in the same
round, the median over rounds; memory is what keys and values of text and question take, whatever
the prompt was trained to say. `in the context` reads the text for every request, as a server does
without a cache of prefixes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

from foreword import load_backbone
from foreword.backbone import Backbone, Call
from foreword.backbone.layout import Layout
from foreword.procedures.distilling.teacher import Teacher
from foreword.tasks.turns import Turns

TEXT = Path(__file__).parent.parent / "recipes" / "distil" / "tarn.txt"
QUESTION = "Who measures the water of the lake, and on which day?"


def main() -> None:
    """Time every variant in turns and print a table."""
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--backbone", default="foreword/mini")
    flags.add_argument("--text", type=Path, default=TEXT)
    flags.add_argument("--lengths", default="16,32,64,128,256,512")
    flags.add_argument("--rounds", type=int, default=9)
    flags.add_argument("--threads", type=int, default=1)
    flags.add_argument("--out", type=Path, help="write the figures as JSON")
    given = flags.parse_args()
    torch.set_num_threads(given.threads)
    backbone = load_backbone(given.backbone)
    question = backbone.tokens.source(QUESTION)
    ids = backbone.tokens.source(given.text.read_text(encoding="utf-8"))
    room = backbone.geometry.context
    if room is not None:
        ids = ids[: room - len(question) - 1]
    lengths = [int(one) for one in given.lengths.split(",") if int(one) < len(ids)]
    calls = variants(backbone, ids, question, lengths)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(given.rounds + 1):
        for name, (call, _) in calls.items():
            seconds[name].append(first_token(backbone, call))
    figures = []
    floor = seconds["no text"][1:]  # the first round warms up
    for name, (_, tokens) in calls.items():
        ratios = [own / base for own, base in zip(seconds[name][1:], floor, strict=True)]
        held = (tokens + len(question)) * bytes_of_a_token(backbone)
        figures.append(
            {
                "variant": name,
                "tokens": tokens,
                "time": statistics.median(ratios),
                "least": min(ratios),
                "most": max(ratios),
                "megabytes": held / 1e6,
            }
        )
    print(f"{backbone.name}: a text of {len(ids)} tokens, a question of {len(question)}")
    print(f"{'before the question':<24}{'tokens':>8}{'time':>8}{'(min–max)':>16}{'MB':>8}")
    for one in figures:
        spread = f"({one['least']:.2f}–{one['most']:.2f})"
        print(
            f"{one['variant']:<24}{one['tokens']:>8}{one['time']:>8.2f}{spread:>16}"
            f"{one['megabytes']:>8.2f}"
        )
    if given.out is not None:
        given.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def variants(
    backbone: Backbone, ids: list[int], question: list[int], lengths: list[int]
) -> dict[str, tuple[Call, int]]:
    """Name -> one question as a call, and how many tokens stand before it."""
    task = Turns("messages")
    first = backbone.geometry.first_position

    def plain(row: list[int]) -> Call:
        return Call(Layout.of([row], first_position=first).to(backbone.device))

    def behind(front: list[int]) -> Call:
        model = Teacher(backbone, task, tuple(front)).model
        return model.call(model.arrange([question]))

    prompts = {f"{n} virtual tokens": (behind(ids[:n]), n) for n in lengths}
    return {
        "no text": (plain(question), 0),
        **prompts,
        "text, keys and values": (behind(ids), len(ids)),
        "text, in the context": (plain([*ids, *question]), len(ids)),
    }


@torch.no_grad()
def first_token(backbone: Backbone, call: Call) -> float:
    """Seconds until the logits after the last token are there."""
    last = torch.tensor([call.layout.input_ids.shape[1] - 1], device=backbone.device)
    began = time.perf_counter()
    backbone.logits(call, last)[0, 0].item()
    return time.perf_counter() - began


def bytes_of_a_token(backbone: Backbone) -> int:
    """What keys and values of one token take in all layers."""
    return backbone.geometry.main.width * backbone.model.dtype.itemsize


if __name__ == "__main__":
    main()
