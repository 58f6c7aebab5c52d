"""Rows that are written with one long prompt: its keys and values shared, and copied for each row.

    python bench/sharing.py --threads 1 --model models/smollm2-135m-instruct
    python bench/sharing.py --threads 1 --model models/smollm2-135m-instruct --dtype bfloat16

A prefix of random numbers before sources of 32 tokens. Figures are those with `copies` left out
(`foreword.backbone.prompts.merged`) divided by those of the same rows with a copy each, medians
over rounds of processor time: to the first token, and for each later one; and the most bytes that
are held beyond weights and prompt. Several prompts: each row has one of them, in turn.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import training
from foreword.axes.injection import KeysValues
from foreword.backbone import Backbone, Call, Decoding, generate, has_units, load_backbone, without
from foreword.backbone.layout import Layout
from foreword.backbone.memory import Alive, resident

SOURCE, NEW = 32, 8
CASES = (
    (16, 256, 1),
    (16, 512, 1),
    (16, 1024, 1),
    (16, 2048, 1),
    (4, 2048, 1),
    (1, 2048, 1),
    (16, 2048, 4),
    (16, 512, 16),
)
"""Rows, virtual tokens, prompts."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a table, and write it where there is a folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--model", default="foreword/mini", help="default %(default)s")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--threads", type=int, help="default: torch's")
    parser.add_argument("--rounds", type=int, default=5, help="default %(default)s")
    parser.add_argument("--cases", type=int, nargs="*", help="numbers from 0; default: all")
    parser.add_argument("--out", help="folder for sharing-<model>-<dtype>.json")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.dtype == "bfloat16" and not has_units("bfloat16", "cpu"):
        print("--dtype bfloat16: this device has no units for it; leave it out")
        return 2
    backbone = load_backbone(options.model, dtype=options.dtype, device="cpu")
    print("| rows | virtual tokens | prompts | first token | each later one | memory |")
    print("|--:|--:|--:|--:|--:|--:|")
    rows = []
    for number, case in enumerate(CASES):
        if options.cases and number not in options.cases:
            continue
        figures = measured(backbone, *case, options.rounds)
        rows.append(dict(zip(("rows", "virtual_tokens", "prompts"), case, strict=True)) | figures)
        told = " | ".join(f"{figures[what]['median']:.2f}" for what in ("first", "later"))
        print(f"| {case[0]} | {case[1]:,} | {case[2]} | {told} | {figures['memory']:.2f} |")
    if options.out:
        given = training.without_out(sys.argv[1:] if arguments is None else arguments)
        report = {
            "command": shlex.join(["python", "bench/sharing.py", *given]),
            "threads": torch.get_num_threads(),
            "versions": {one: version(one) for one in ("torch", "transformers", "foreword")},
            "shared_over_copied": rows,
        }
        file = Path(options.out) / f"sharing-{Path(options.model).name}-{options.dtype}.json"
        file.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


def measured(
    backbone: Backbone, rows: int, length: int, prompts: int, rounds: int
) -> dict[str, Any]:
    """What shared keys and values take, divided by what copies take."""
    dice = torch.Generator().manual_seed(0)
    kv, vocabulary = KeysValues(backbone.geometry), backbone.geometry.vocabulary
    tables = [0.3 * torch.randn(length, kv.width, generator=dice) for _ in range(prompts)]
    made = [kv.prompt_of(table) for table in tables]
    sources = [
        torch.randint(3, vocabulary, (SOURCE,), generator=dice).tolist() for _ in range(rows)
    ]
    layout = Layout.of(sources, virtual=length, side="left")
    of = [row % prompts for row in range(rows)]
    call = Call.choosing(layout, [one for one in made if one is not None], of, vocabulary)
    ratios: dict[str, list[float]] = {"first": [], "later": []}
    for number in range(rounds + 1):
        first, later = {}, {}
        for off in ((), ("copies",)) if number % 2 else (("copies",), ()):
            with without(backbone.model, off):
                first[off] = _seconds(backbone, call, 1)
                later[off] = _seconds(backbone, call, 1 + NEW) - first[off]
        if number:  # the first one is warm-up
            ratios["first"].append(first[()] / first["copies",])
            ratios["later"].append(later[()] / later["copies",])
    peaks = {}
    for off in ((), ("copies",)):
        with without(backbone.model, off), Alive([*resident(backbone.model), *tables]) as alive:
            _seconds(backbone, call, 2)
        peaks[off] = alive.peak
    return {
        what: {
            "median": round(statistics.median(values), 4),
            "min": round(min(values), 4),
            "max": round(max(values), 4),
        }
        for what, values in ratios.items()
    } | {"memory": round(peaks[()] / peaks["copies",], 4), "bytes": peaks[()]}


def _seconds(backbone: Backbone, call: Call, new: int) -> float:
    begun = time.process_time()
    generate(backbone, call, Decoding(max_new_tokens=new))
    return time.process_time() - begun


if __name__ == "__main__":
    sys.exit(main())
