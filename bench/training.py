"""Time of a training step: the floor, foreword's, and PEFT's, side by side in one run.

    python bench/training.py                         # GPT-2 124M shape, E2E lengths, batch 10
    python bench/training.py --threads 1 --clock cpu    # on a machine that does other work too

Every variant runs on the same frozen weights. In every round all variants run the same examples,
step by step in turn and each step in another order; a variant's figure is the median over rounds
of its time divided by the floor's time in that round (`bench/floor.py`). So a busy machine disturbs
all of them alike, and no absolute time is reported. The floor runs twice a round: how far "floor,
again" is from 1 says how far to trust the rest.

A training step is forward, backward, optimizer step and clearing of the gradients. Ours is the
library's own `foreword.training.loop._one_step`; PEFT's is `model(**batch).loss` with AdamW.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import random
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import GPT2LMHeadModel, PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

import peft_steps
from floor import SHAPES, Floor, random_gpt2, with_one_gelu_kernel
from foreword.backbone import Backbone, Tokens
from foreword.backbone.layout import Layout
from foreword.methods import PrefixTuning
from foreword.methods.axes import MLP, Table
from foreword.recipe import TrainingSpec
from foreword.training import LengthBatches, Pair
from foreword.training.batching import POOL
from foreword.training.hardware import Hardware
from foreword.training.loop import _one_step
from foreword.tuned.compose import compose

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"
FLOOR, AGAIN, STRICT = "floor", "floor, again", "floor, one GELU kernel"
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
AnyModel = TypeVar("AnyModel", bound=PreTrainedModel)


@dataclass(frozen=True)
class Variant:
    """One thing that is timed.

    Attributes:
        name: in the report.
        batches: whether its batches hold examples of similar length, or any.
        head: where it runs the language-model head.
        step: runs one batch, given as indices of examples; returns the loss.
    """

    name: str
    batches: Literal["sorted", "shuffled"]
    head: Literal["targets", "everywhere"]
    step: Callable[[list[int]], float]


@dataclass(frozen=True)
class Round:
    """The same examples in batches of similar length, and in batches as they come."""

    sorted: list[list[int]]
    shuffled: list[list[int]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, and write JSON and Markdown if a folder is given."""
    options = _options(arguments)
    transformers_logging.set_verbosity_error()
    if options.threads:
        torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    pairs, lengths = make_pairs(options)
    rounds = list(
        islice(plan(pairs, options.batch_size, options.steps, options.seed), options.rounds)
    )
    variants = make_variants(options, pairs, rounds, device)
    _say(f"{len(variants)} variants, {options.rounds} rounds of {options.steps} steps; {lengths}")
    for variant in variants:
        variant.step(getattr(rounds[0], variant.batches)[0])
    ratios: dict[str, list[float]] = {variant.name: [] for variant in variants}
    for number, batches in enumerate(rounds):
        seconds = time_round(variants, batches, random.Random(number), device, options.clock)
        for name, value in seconds.items():
            ratios[name].append(value / seconds[FLOOR])
        shown = "  ".join(f"{name} {values[-1]:.2f}" for name, values in ratios.items())
        _say(f"round {number + 1}/{options.rounds}: {shown}")
    report = make_report(options, arguments, lengths, pairs, rounds, variants, ratios)
    table = markdown(report)
    print(table)
    if options.out:
        folder = Path(options.out)
        folder.mkdir(parents=True, exist_ok=True)
        stem = f"training-{device.type}"
        text = json.dumps(report, indent=2, ensure_ascii=False)
        (folder / f"{stem}.json").write_text(text + "\n", encoding="utf-8")
        (folder / f"{stem}.md").write_text(table + "\n", encoding="utf-8")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=10, help="default %(default)s")
    parser.add_argument("--steps", type=int, default=5, help="steps a round, default %(default)s")
    parser.add_argument("--batch-size", type=int, default=10, help="default %(default)s")
    parser.add_argument("--length", type=int, default=10, help="virtual tokens, P = %(default)s")
    parser.add_argument("--threads", type=int, help="of the CPU; default: torch's")
    parser.add_argument(
        "--clock",
        choices=tuple(CLOCKS),
        default="wall",
        help="cpu: processor time of this process, which other processes delay but do not add to",
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--shape", choices=tuple(SHAPES), default="gpt2")
    parser.add_argument(
        "--lengths", choices=("auto", "synthetic"), default="auto", help="auto: E2E's if it is here"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="folder for training-<device>.json and .md")
    options = parser.parse_args(arguments)
    if not 1 <= options.steps <= POOL:
        parser.error(f"--steps: expected 1 to {POOL}, found {options.steps}")
    if options.rounds < 1:
        parser.error(f"--rounds: expected at least 1, found {options.rounds}")
    return options


# What is run: examples and batches


def make_pairs(options: argparse.Namespace) -> tuple[list[Pair], str]:
    """Examples of realistic lengths, their tokens random, and a sentence on where the lengths come
    from. As many as the library sorts together: one pool."""
    count = POOL * options.batch_size
    dice = random.Random(options.seed)
    measured = None if options.lengths == "synthetic" else _e2e_lengths(count, dice)
    lengths = measured or _synthetic_lengths(count, dice)
    vocabulary = SHAPES[options.shape]["vocab_size"]

    def ids(number: int) -> list[int]:
        return [dice.randrange(vocabulary) for _ in range(number)]

    pairs = [Pair(ids(source), ids(target)) for source, target in lengths]
    where = (
        "the E2E challenge's training set, tokenised by GPT-2's tokenizer, a random sample"
        if measured
        else "synthetic (normal, source 32 ± 7, target 26 ± 8, correlation 0.7)"
    )
    sources, targets = (statistics.mean(side) for side in zip(*lengths, strict=True))
    return pairs, (
        f"lengths: {where}; {count} examples, {sources:.1f} source and {targets:.1f} target tokens "
        "on average"
    )


def _e2e_lengths(count: int, dice: random.Random) -> list[tuple[int, int]] | None:
    """Source and target tokens of a sample of E2E's training references, if the files are here."""
    from transformers import GPT2Tokenizer

    from foreword.data import read_examples
    from foreword.tasks.text import Templates

    vocabulary, merges = (SHARED / "tokenizers/gpt2" / n for n in ("encoder.json", "vocab.bpe"))
    data = SHARED / "data/e2e/trainset.csv"
    if not all(file.is_file() for file in (vocabulary, merges, data)):
        return None
    tokens = Tokens(GPT2Tokenizer(vocab=str(vocabulary), merges=str(merges)))
    templates = Templates.of("{record}\n")
    both = [(e, reference) for e in read_examples(data, "e2e") for reference in e.references]
    tokenised = [
        templates.pair(tokens, *one, room=lambda _: None) for one in dice.sample(both, count)
    ]
    return [(len(source), len(target)) for source, target, _ in tokenised]


def _synthetic_lengths(count: int, dice: random.Random) -> list[tuple[int, int]]:
    """Two normal variables cut to 8..60, correlated by 0.7 as E2E's are."""

    def cut(value: float) -> int:
        return round(min(60.0, max(8.0, value)))

    lengths = []
    for _ in range(count):
        one, other = dice.gauss(0, 1), dice.gauss(0, 1)
        lengths.append((cut(32 + 7 * one), cut(26 + 8 * (0.7 * one + math.sqrt(0.51) * other))))
    return lengths


def plan(pairs: Sequence[Pair], batch_size: int, steps: int, seed: int = 0) -> Iterator[Round]:
    """Rounds without end: batches of the library's own making, and the same examples regrouped.

    A round takes its batches from evenly spaced lengths, so that rounds are alike and regrouping
    mixes short examples with long ones as shuffling the whole set would.
    """
    dice = random.Random(seed)
    batches = LengthBatches([pair.length for pair in pairs], batch_size, seed=seed).epoch(0)
    batches.sort(key=lambda rows: sum(pairs[i].length for i in rows))
    cuts = [len(batches) * i // steps for i in range(steps + 1)]
    while True:
        ordered = [dice.choice(batches[low:high]) for low, high in pairwise(cuts)]
        mixed = [row for rows in ordered for row in rows]
        dice.shuffle(mixed)
        starts = range(0, len(mixed), batch_size)
        yield Round(ordered, [mixed[at : at + batch_size] for at in starts])


# Who runs it


def make_variants(
    options: argparse.Namespace,
    pairs: Sequence[Pair],
    rounds: Sequence[Round],
    device: torch.device,
) -> list[Variant]:
    """All variants, on one set of frozen weights."""
    weights = random_gpt2(options.shape, options.seed).to(device)
    layouts = {
        tuple(rows): _plain_layout(pairs, rows).to(device)
        for batches in rounds
        for rows in batches.sorted
    }
    floor = Floor(same_weights(weights), layouts)
    strict = Floor(with_one_gelu_kernel(same_weights(weights)), layouts)
    backbone = as_backbone(same_weights(weights))
    # Accelerate's precision is the whole process's: float32 models are prepared before bfloat16's.
    ours = {
        "MLP": ours_step(backbone, pairs, options, MLP(hidden=peft_steps.HIDDEN), "float32"),
        "table": ours_step(backbone, pairs, options, Table(), "float32"),
        "bfloat16": ours_step(backbone, pairs, options, MLP(hidden=peft_steps.HIDDEN), "bfloat16"),
    }
    peft = {
        "MLP": peft_step(same_weights(weights), pairs, options, mlp=True),
        "table": peft_step(same_weights(weights), pairs, options, mlp=False),
    }
    return [
        Variant(FLOOR, "sorted", "targets", floor.step),
        Variant(STRICT, "sorted", "targets", strict.step),
        Variant("foreword, MLP", "sorted", "targets", ours["MLP"]),
        Variant("PEFT, MLP", "shuffled", "everywhere", peft["MLP"]),
        Variant("foreword, table", "sorted", "targets", ours["table"]),
        Variant("PEFT, table", "shuffled", "everywhere", peft["table"]),
        Variant(AGAIN, "sorted", "targets", floor.step),
        Variant("foreword, MLP, shuffled", "shuffled", "targets", ours["MLP"]),
        Variant("PEFT, MLP, sorted", "sorted", "everywhere", peft["MLP"]),
        Variant("foreword, MLP, bfloat16", "sorted", "targets", ours["bfloat16"]),
    ]


def ours_step(
    backbone: Backbone,
    pairs: Sequence[Pair],
    options: argparse.Namespace,
    reparameterization: MLP | Table,
    precision: Literal["float32", "bfloat16"],
) -> Callable[[list[int]], float]:
    """The library's own optimizer step on a fresh prompt, set up as `foreword.training.train`
    does."""
    method = PrefixTuning(
        name="prefix-tuning", length=options.length, reparameterization=reparameterization
    )
    model = compose(backbone, method)
    spec = TrainingSpec(
        steps=1, batch_size=options.batch_size, learning_rate=peft_steps.RATE, precision=precision
    )
    hardware = Hardware.of(backbone.device.type, precision)
    wrapped, optimizer = hardware.accelerator.prepare(
        model,
        torch.optim.AdamW(model.parameters(), lr=peft_steps.RATE, weight_decay=0.0, fused=True),
    )

    def step(rows: list[int]) -> float:
        losses, _ = _one_step(wrapped, model, pairs, [rows], spec, hardware, optimizer)
        return losses["loss"]

    return step


def peft_step(
    base: GPT2LMHeadModel, pairs: Sequence[Pair], options: argparse.Namespace, *, mlp: bool
) -> Callable[[list[int]], float]:
    """PEFT's prefix tuning as it is usually trained."""
    method = "prefix, MLP" if mlp else "prefix, table"
    step = peft_steps.step_of(base, pairs, method, options.length, "text")
    assert step is not None, "PEFT has prefix-tuning"
    return lambda rows: float(step(rows))


def _plain_layout(pairs: Sequence[Pair], rows: Sequence[int]) -> Layout:
    """A batch without virtual tokens."""
    return Layout.of([pairs[i].source for i in rows], [pairs[i].target for i in rows])


def same_weights(model: AnyModel) -> AnyModel:
    """Another model object with the very same parameters."""
    kept = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in kept})


def as_backbone(model: PreTrainedModel) -> Backbone:
    """The model as foreword takes it; no text is read, so its tokenizer knows one word."""
    end = "<|endoftext|>"
    words = Tokenizer(WordLevel({end: 0}, unk_token=end))
    tokens = Tokens(PreTrainedTokenizerFast(tokenizer_object=words, eos_token=end))
    return Backbone.wrap(model, tokens, name=f"random-{model.config.model_type}", sha256="0" * 64)


# Timing and reporting


def time_round(
    variants: Sequence[Variant],
    batches: Round,
    dice: random.Random,
    device: torch.device,
    clock: str,
) -> dict[str, float]:
    """Seconds of each variant for one round: step after step, each taken by all in turn.

    Args:
        variants: who takes turns.
        batches: the round's examples.
        dice: decides the order in each step. A fixed cycle would give a variant the same
            predecessor throughout, and what that one leaves in caches and heap.
        device: where they run.
        clock: one of `CLOCKS`.
    """
    now = CLOCKS[clock]
    seconds = dict.fromkeys((variant.name for variant in variants), 0.0)
    for number in range(len(batches.sorted)):
        for variant in dice.sample(variants, len(variants)):
            rows = getattr(batches, variant.batches)[number]
            _synchronise(device)
            started = now()
            variant.step(rows)
            _synchronise(device)
            seconds[variant.name] += now() - started
    return seconds


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def make_report(
    options: argparse.Namespace,
    arguments: Sequence[str] | None,
    lengths: str,
    pairs: Sequence[Pair],
    rounds: Sequence[Round],
    variants: Sequence[Variant],
    ratios: dict[str, list[float]],
) -> dict[str, Any]:
    """Everything that was found, without any absolute time."""
    given = sys.argv[1:] if arguments is None else arguments
    steps = len(rounds) * options.steps
    padded = {
        kind: sum(
            len(rows) * max(pairs[i].length for i in rows)
            for batches in rounds
            for rows in getattr(batches, kind)
        )
        for kind in ("sorted", "shuffled")
    }
    used = [pairs[i] for batches in rounds for rows in batches.sorted for i in rows]
    targets = sum(len(pair.target) for pair in used)
    return {
        "command": shlex.join(["python", "bench/training.py", *without_out(given)]),
        "device": options.device,
        "threads": torch.get_num_threads(),
        "clock": options.clock,
        "versions": {name: version(name) for name in ("torch", "transformers", "peft", "foreword")},
        "shape": {"name": options.shape, **SHAPES[options.shape]},
        "lengths": lengths,
        "batch_size": options.batch_size,
        "virtual_tokens": options.length,
        "rounds": options.rounds,
        "steps_per_round": options.steps,
        "real_tokens_per_step": sum(pair.length for pair in used) / steps,
        "variants": {
            variant.name: {
                "batches": variant.batches,
                "head": variant.head,
                "positions_per_step": padded[variant.batches] / steps,
                "head_positions_per_step": (
                    targets if variant.head == "targets" else padded[variant.batches]
                )
                / steps,
                "median": statistics.median(ratios[variant.name]),
                "min": min(ratios[variant.name]),
                "max": max(ratios[variant.name]),
                "ratios": [round(value, 4) for value in ratios[variant.name]],
            }
            for variant in variants
        },
    }


def without_out(arguments: Sequence[str]) -> list[str]:
    """The command line without the folder that the results went to."""
    kept, skip = [], False
    for argument in arguments:
        if skip or argument == "--out" or argument.startswith("--out="):
            skip = argument == "--out"
            continue
        kept.append(argument)
    return kept


def markdown(report: dict[str, Any]) -> str:
    """The report as a Markdown table."""
    versions = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    lines = [
        f"`{report['command']}`",
        "",
        f"{report['device']}, {report['threads']} thread(s), {report['clock']} clock; {versions}; "
        f"shape {report['shape']['name']}, batch {report['batch_size']}, "
        f"{report['virtual_tokens']} virtual tokens; {report['rounds']} rounds of "
        f"{report['steps_per_round']} steps, {report['real_tokens_per_step']:.0f} real tokens a "
        f"step; {report['lengths']}.",
        "",
        "| variant | batches | positions a step | head positions a step | time ÷ floor | min–max |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for name, figures in report["variants"].items():
        lines.append(
            f"| {name} | {figures['batches']} | {figures['positions_per_step']:.0f} "
            f"| {figures['head_positions_per_step']:.0f} | {figures['median']:.2f} "
            f"| {figures['min']:.2f}–{figures['max']:.2f} |"
        )
    return "\n".join(lines)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
