"""Time of a training step of infix-tuning: with sources read in every step, and with them kept.

    python bench/infix.py --threads 1 --clock cpu

Every variant trains a table of virtual tokens on the same frozen weights and the same examples of
the E2E challenge's lengths, step by step in turn (`bench/training.py` says how; its flags hold here
too). A figure is the median over rounds of a variant's time divided by prefix-tuning's in that
round. Reading what is kept, which a training does once, is not in it.
"""

from __future__ import annotations

import json
import random
import shlex
import statistics
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import torch

import peft_steps
import training
from floor import SHAPES, random_gpt2
from foreword.backbone import Backbone, Sources
from foreword.backbone.layout import Pair
from foreword.methods import EmbeddingOnly, InfixTuning, MethodOptions, PrefixTuning
from foreword.methods.axes import Table
from foreword.recipe import TrainingSpec
from foreword.training.hardware import Hardware
from foreword.training.loop import _one_step
from foreword.training.reuse import TOGETHER, KeptSources
from foreword.tuned.compose import compose

PREFIX, AGAIN = "prefix", "prefix, again"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, and write JSON if a folder is given."""
    options = training._options(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    pairs, lengths = training.make_pairs(options)
    planned = training.plan(pairs, options.batch_size, options.steps, options.seed)
    rounds = list(islice(planned, options.rounds))
    used = {i for one in rounds for rows in one.sorted for i in rows}
    backbone = training.as_backbone(random_gpt2(options.shape, options.seed).to(device))
    size = 0
    steps: dict[str, Callable[[list[int]], float]] = {}
    common: dict[str, Any] = {"length": options.length, "reparameterization": Table()}
    methods: dict[str, MethodOptions] = {
        PREFIX: PrefixTuning(name="prefix-tuning", **common),
        "infix": InfixTuning(name="infix-tuning", **common),
        "embedding infix": EmbeddingOnly(name="embedding-only", placement="infix", **common),
    }
    for name, method in methods.items():
        steps[name], _ = step_of(backbone, pairs, method, options.batch_size)
        if name == PREFIX:
            steps[AGAIN] = steps[name]
        else:
            kept = [pairs[i].source for i in sorted(used)]
            made = step_of(backbone, pairs, method, options.batch_size, kept)
            steps[f"{name}, sources kept"], size = made
    variants = [training.Variant(n, "sorted", "targets", step) for n, step in steps.items()]
    for variant in variants:
        variant.step(rounds[0].sorted[0])
    ratios: dict[str, list[float]] = {variant.name: [] for variant in variants}
    for number, batches in enumerate(rounds):
        seconds = training.time_round(
            variants, batches, random.Random(number), device, options.clock
        )
        for name, value in seconds.items():
            ratios[name].append(value / seconds[PREFIX])
        shown = "  ".join(f"{name} {values[-1]:.2f}" for name, values in ratios.items())
        print(f"round {number + 1}/{options.rounds}: {shown}", file=sys.stderr, flush=True)
    given = sys.argv[1:] if arguments is None else list(arguments)
    report = {
        "command": shlex.join(["python", "bench/infix.py", *training.without_out(given)]),
        "device": options.device,
        "threads": torch.get_num_threads(),
        "clock": options.clock,
        "versions": {name: version(name) for name in ("torch", "transformers", "foreword")},
        "shape": {"name": options.shape, **SHAPES[options.shape]},
        "lengths": lengths,
        "batch_size": options.batch_size,
        "virtual_tokens": options.length,
        "rounds": options.rounds,
        "steps_per_round": options.steps,
        "kept_bytes_per_source_token": size / sum(len(pairs[i].source) for i in used),
        "time_over_prefix": {
            name: {
                "median": statistics.median(values),
                "min": min(values),
                "max": max(values),
                "ratios": [round(value, 4) for value in values],
            }
            for name, values in ratios.items()
        },
    }
    print("| variant | time ÷ prefix | min–max |\n|---|--:|--:|")
    for name, spread in report["time_over_prefix"].items():
        print(f"| {name} | {spread['median']:.2f} | {spread['min']:.2f}–{spread['max']:.2f} |")
    if options.out:
        folder = Path(options.out)
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(report, indent=2, ensure_ascii=False)
        (folder / f"infix-{options.shape}-{device.type}.json").write_text(
            text + "\n", encoding="utf-8"
        )
    return 0


def step_of(
    backbone: Backbone,
    pairs: Sequence[Pair],
    method: MethodOptions,
    batch_size: int,
    kept: Sequence[list[int]] = (),
) -> tuple[Callable[[list[int]], float], int]:
    """The library's own optimizer step on a fresh prompt, and the bytes of the sources it keeps."""
    model = compose(backbone, method)
    sources = Sources(backbone, float("inf"))
    if kept:
        model.reuses = (KeptSources(sources),)
        for start in range(0, len(kept), TOGETHER):
            before = model.arrange(kept[start : start + TOGETHER]).before
            assert before is not None, "every source is longer than one token"
            sources.keep(before)
    spec = TrainingSpec(steps=1, batch_size=batch_size, learning_rate=peft_steps.RATE)
    hardware = Hardware.of(backbone.device.type)
    wrapped, optimizer = hardware.accelerator.prepare(
        model,
        torch.optim.AdamW(model.parameters(), lr=peft_steps.RATE, weight_decay=0.0, fused=True),
    )

    def step(rows: list[int]) -> float:
        losses, _ = _one_step(wrapped, model, pairs, [rows], spec, hardware, optimizer)
        return losses["loss"]

    return step, sources.size


if __name__ == "__main__":
    sys.exit(main())
