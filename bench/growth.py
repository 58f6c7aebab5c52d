"""How cost grows: a training step and a generated token, against everything that can become large.

    python bench/growth.py --threads 1 --clock cpu --out bench/results
    python bench/growth.py --table bench/results/growth-cpu.json    # as Markdown

One axis after the other is varied around a small random Llama with a prefix: virtual tokens, source
tokens, rows of a batch, the model's width, training examples. At each value take turns

- foreword: its own training step (its share of planning an epoch included), and decoding;
- bare: the backbone without a prompt on the same text: the floor of `bench/steps.py` (forward, and
  the gradient at the input embeddings), and decoding; for virtual tokens, which the bare backbone
  has none of, it reads as many more tokens of text instead.

A figure is a ratio of one run, the median over rounds. An exponent e says that cost grew by the
e-th power from an axis's last value but one to its last; where foreword's is no larger than the
bare backbone's, no term of its own grows faster than the model's.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shlex
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import logging as transformers_logging

import training
from foreword.backbone import Decoding, generate
from foreword.backbone.layout import Pair
from foreword.backbone.memory import Alive, resident
from foreword.methods import PrefixTuning
from foreword.methods.axes import Table
from foreword.training.batching import LengthBatches
from foreword.tuned import TunedModel
from foreword.tuned.compose import compose
from shapes import Lengths, Shape
from steps import Step, floor_step, our_step

OURS, BARE = "foreword", "bare"
WRITTEN = 8
"""Tokens of an answer of which the time is taken, less that of an answer of one."""


@dataclass(frozen=True)
class Point:
    """All that decides a cost."""

    virtual: int = 16
    source: int = 64
    target: int = 16
    rows: int = 4
    width: int = 256
    examples: int = 200
    layers: int = 4
    vocabulary: int = 8192


AXES: Mapping[str, Mapping[str, Sequence[int]]] = {
    "small": {
        "virtual": (1, 16, 128, 512, 1024, 2048),
        "source": (16, 64, 256, 1024, 2048),
        "rows": (1, 4, 16),
        "width": (128, 256, 512),
        "examples": (200, 20_000, 200_000),
    },
    "tiny": {"virtual": (1, 4), "source": (4, 8), "examples": (10, 20)},
}
BASES = {
    "small": Point(),
    "tiny": Point(2, 4, 3, rows=2, width=32, examples=10, layers=1, vocabulary=101),
}
TITLES = {
    "virtual": "virtual tokens",
    "source": "source tokens",
    "rows": "rows of a batch",
    "width": "width of the model",
    "examples": "training examples",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure all axes and print the table."""
    options = _options(arguments)
    transformers_logging.set_verbosity_error()
    if options.table:
        print(table_of(json.loads(Path(options.table).read_text(encoding="utf-8"))))
        return 0
    if options.threads:
        torch.set_num_threads(options.threads)
    axes: dict[str, Any] = {}
    for axis, values in AXES[options.shape].items():
        axes[axis] = {
            str(value): measured(replace(BASES[options.shape], **{axis: value}), axis, options)
            for value in values
        }
        _say(f"{axis} done")
    given = sys.argv[1:] if arguments is None else arguments
    report = {
        "command": shlex.join(["python", "bench/growth.py", *training.without_out(given)]),
        "threads": torch.get_num_threads(),
        "clock": options.clock,
        "rounds": options.rounds,
        "around": asdict(BASES[options.shape]),
        "axes": {axis: figures(points) for axis, points in axes.items()},
    }
    print(table_of(report))
    if options.out:
        text = json.dumps(report, indent=1)
        (Path(options.out) / "growth-cpu.json").write_text(text + "\n", encoding="utf-8")
    return 0


def measured(point: Point, axis: str, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """By what is measured, what foreword and the bare backbone take: seconds, or bytes."""
    torch.manual_seed(options.seed)
    weights = llama(point).eval().requires_grad_(False)
    shape = Shape(lambda: weights, Lengths(point.source), Lengths(point.target), point.rows)
    pairs = shape.pairs(point.examples, point.vocabulary, options.seed)
    ours = _tuned(weights, point.virtual)
    more = point.virtual if axis == "virtual" else 0
    rows = list(range(point.rows))
    longer = _longer([pairs[i] for i in rows], more, point.vocabulary)
    bare = ours.bare()
    floor = floor_step(training.same_weights(weights), {tuple(rows): bare.lay_out(longer)})
    steps: dict[str, Step] = {OURS: our_step(ours, pairs, shape, options), BARE: floor}
    peaks: dict[str, float] = {}
    for variant, step in steps.items():
        step(rows)
        with Alive(resident(weights)) as alive:
            step(rows)
        peaks[variant] = alive.peak
    clock = training.CLOCKS[options.clock]
    sources = [pair.source for pair in longer]
    answering = {
        OURS: _writing(ours, [pairs[i].source for i in rows]),
        BARE: _writing(bare, sources),
    }
    spent: dict[str, dict[str, list[float]]] = {
        what: {OURS: [], BARE: []} for what in ("step", "token")
    }
    for number in range(options.rounds):
        for variant in random.Random(number).sample([OURS, BARE], 2):
            started = clock()
            steps[variant](rows)
            spent["step"][variant].append(clock() - started)
            spent["token"][variant].append(
                (_time(answering[variant], WRITTEN, clock) - _time(answering[variant], 1, clock))
                / (WRITTEN - 1)
            )
    started = clock()
    batches = LengthBatches([pair.length for pair in pairs], point.rows)
    count = len(batches.epoch(0))
    planning = (clock() - started) / count
    times = {
        what: {variant: statistics.median(all_) for variant, all_ in by.items()}
        for what, by in spent.items()
    }
    times["step"][OURS] += planning
    return {**times, "peak": peaks}


def llama(point: Point) -> LlamaForCausalLM:
    """A Llama of a point's layers, width and vocabulary, its weights random."""
    heads = max(1, point.width // 64)
    return LlamaForCausalLM(
        LlamaConfig(
            num_hidden_layers=point.layers,
            hidden_size=point.width,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            intermediate_size=4 * point.width,
            vocab_size=point.vocabulary,
            max_position_embeddings=8192,
            bos_token_id=0,
            eos_token_id=0,
        )
    )


def _tuned(weights: LlamaForCausalLM, virtual: int) -> TunedModel:
    method = PrefixTuning(name="prefix-tuning", length=virtual, reparameterization=Table())
    return compose(training.as_backbone(training.same_weights(weights)), method)


def _longer(pairs: Sequence[Pair], more: int, vocabulary: int) -> list[Pair]:
    dice = random.Random(more)
    return [
        Pair([*(dice.randrange(3, vocabulary) for _ in range(more)), *pair.source], pair.target)
        for pair in pairs
    ]


def _writing(model: TunedModel, sources: Sequence[Sequence[int]]) -> Callable[[int], Any]:
    call = model.call(model.arrange(sources, side="left"))

    def write(tokens: int) -> Any:
        with torch.no_grad():
            return generate(model.backbone, call, Decoding(max_new_tokens=tokens))

    return write


def _time(write: Callable[[int], Any], tokens: int, clock: Callable[[], float]) -> float:
    started = clock()
    write(tokens)
    return clock() - started


def figures(points: dict[str, dict[str, dict[str, float]]]) -> dict[str, Any]:
    """Ratios at each value of an axis, and the exponents at its end."""
    values = list(points)
    before, last = values[-2:]
    by = math.log(int(last) / int(before))
    whats = ("step", "peak", "token")
    return {
        "ratios": {
            value: {what: round(at[what][OURS] / at[what][BARE], 3) for what in whats}
            for value, at in points.items()
        },
        "exponents": {
            what: {
                variant: round(
                    math.log(points[last][what][variant] / points[before][what][variant]) / by, 2
                )
                for variant in (OURS, BARE)
            }
            for what in whats
        },
    }


def table_of(report: dict[str, Any]) -> str:
    """A report as a Markdown table."""
    lines = [
        "| | value | step | peak of a step | generated token |",
        "|---|--:|--:|--:|--:|",
    ]
    for axis, found in report["axes"].items():
        title = TITLES[axis]
        for value, ratios in found["ratios"].items():
            cells = " | ".join(f"{ratios[what]:.2f}" for what in ("step", "peak", "token"))
            lines.append(f"| {title} | {int(value):,} | {cells} |")
            title = ""
        powers = " | ".join(
            f"{found['exponents'][what][OURS]:.2f} ({found['exponents'][what][BARE]:.2f})"
            for what in ("step", "peak", "token")
        )
        lines.append(f"| | exponent (bare) | {powers} |")
    return "\n".join(lines)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--shape", choices=tuple(AXES), default="small")
    parser.add_argument("--rounds", type=int, default=3, help="default %(default)s")
    parser.add_argument("--threads", type=int, help="of the CPU; default: torch's")
    parser.add_argument("--clock", choices=tuple(training.CLOCKS), default="wall")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="folder for growth-cpu.json")
    parser.add_argument("--table", help="a file of results: print it and measure nothing")
    parser.set_defaults(device="cpu", precision="float32")
    return parser.parse_args(arguments)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
