"""Time of loading a prompt onto a backbone that is there, and of changing from one to another.

    python bench/prompts.py                              # foreword/mini's shape
    python bench/prompts.py --shape gpt2                 # GPT-2's 124M shape
    python bench/prompts.py --threads 1 --clock cpu      # on a machine that does other work

Both foreword and PEFT hold the same number of prefixes of one length, on weights of one shape. All
variants take turns in every round; a figure is the median over rounds of a variant's time divided
by that of one forward pass of the backbone alone, 32 tokens, in the same round. The time to remove
an adapter again is not counted.
"""

from __future__ import annotations

import argparse
import json
import random
import shlex
import statistics
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, PrefixTuningConfig, get_peft_model
from transformers import AutoTokenizer, GPT2LMHeadModel
from transformers.utils import logging as transformers_logging

import foreword
from floor import SHAPES, random_gpt2
from foreword.artifacts.artifact import save_artifact
from foreword.artifacts.manifest import versions
from foreword.backbone import Backbone, Tokens, bundled_backbones
from foreword.backbone.text import tokenizing
from foreword.methods import PrefixTuning
from foreword.methods.axes import Table
from foreword.recipe import TaskId
from foreword.tuned.compose import compose
from training import CLOCKS

PASS = "one forward pass"
TOKENS = 32
KEPT = 4
"""Artifacts that are loaded in turn."""
Timed = Callable[[], float]
"""Runs once; the seconds that count."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, and write JSON if a folder is given."""
    options = _options(arguments)
    transformers_logging.set_verbosity_error()
    if options.threads:
        torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        variants = make_variants(options, Path(folder))
        for run in variants.values():
            run()
        ratios: dict[str, list[float]] = {name: [] for name in variants}
        for number in range(options.rounds):
            seconds = time_round(variants, options.steps, random.Random(number))
            for name, value in seconds.items():
                ratios[name].append(value / seconds[PASS])
            print(f"round {number + 1}/{options.rounds}", file=sys.stderr, flush=True)
    given = sys.argv[1:] if arguments is None else list(arguments)
    report = {
        "command": shlex.join(["python", "bench/prompts.py", *given]),
        "shape": options.shape,
        "registered": options.registered,
        "threads": torch.get_num_threads(),
        "clock": options.clock,
        "versions": {**versions(), "peft": version("peft")},
        "beside": PASS,
        "variants": {
            name: {"median of ratios": statistics.median(values), "ratios": values}
            for name, values in ratios.items()
        },
    }
    print(table(report))
    if options.out:
        file = Path(options.out) / f"prompts-{options.shape}-cpu.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--shape", choices=tuple(SHAPES), default="mini")
    parser.add_argument(
        "--length", type=int, default=20, help="virtual tokens; default %(default)s"
    )
    parser.add_argument(
        "--registered", type=int, default=50, help="prompts that are there; default %(default)s"
    )
    parser.add_argument("--rounds", type=int, default=10, help="default %(default)s")
    parser.add_argument("--steps", type=int, default=5, help="a round; default %(default)s")
    parser.add_argument("--threads", type=int, help="of the CPU; default: torch's")
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall")
    parser.add_argument("--out", help="folder for prompts-<shape>-cpu.json")
    return parser.parse_args(arguments)


def make_variants(options: argparse.Namespace, folder: Path) -> dict[str, Timed]:
    """What is measured, by name.

    Args:
        options: of the command line.
        folder: where artifacts and adapters are written.
    """
    clock = CLOCKS[options.clock]

    def timed(run: Callable[[], object]) -> Timed:
        def measure() -> float:
            begun = clock()
            run()
            return clock() - begun

        return measure

    ids = torch.randint(1, 100, (1, TOKENS))
    plain = random_gpt2(options.shape)
    return {
        PASS: timed(lambda: plain(input_ids=ids)),
        **_ours(options, folder, ids, timed),
        **_theirs(options, folder, ids, timed, clock),
    }


def _ours(
    options: argparse.Namespace,
    folder: Path,
    ids: torch.Tensor,
    timed: Callable[[Callable[[], object]], Timed],
) -> dict[str, Timed]:
    name = bundled_backbones()["foreword/mini"]
    tokens = Tokens(AutoTokenizer.from_pretrained(name))
    model = random_gpt2(options.shape)
    if options.shape == "tiny":
        model.resize_token_embeddings(len(tokens.tokenizer))
    backbone = Backbone.wrap(model, tokens, name="random-gpt2", sha256="0" * 64)
    method = PrefixTuning(
        name="prefix-tuning", length=options.length, reparameterization=Table(std=1.0)
    )
    folders = [folder / f"artifact-{number}" for number in range(KEPT)]
    for place in folders:
        save_artifact(
            place,
            compose(backbone, method),
            name=place.name,
            method=method,
            task=TaskId(input="{text}", target="{reference}"),
        )
    bank = foreword.prompts(backbone)
    for number in range(options.registered):
        bank.add(str(number), folders[number % KEPT])
    number = count()

    def load() -> object:
        return foreword.load(folders[next(number) % KEPT], backbone=backbone)

    def hash_and_load() -> object:
        tokenizing._hashes.clear()
        return load()

    def prompt(at: int) -> object:
        return bank[str(at % options.registered)].model.prompt()

    def call(at: int) -> object:
        own = bank[str(at % options.registered)].model
        return backbone.logits(own.call(own.arrange(ids.tolist())))

    return {
        "foreword, load": timed(load),
        "foreword, load and hash the tokenizer": timed(hash_and_load),
        "foreword, change the prompt": timed(lambda: prompt(next(number))),
        "foreword, a call with one prompt": timed(lambda: call(0)),
        "foreword, a call with the next prompt": timed(lambda: call(next(number))),
    }


def _theirs(
    options: argparse.Namespace,
    folder: Path,
    ids: torch.Tensor,
    timed: Callable[[Callable[[], object]], Timed],
    clock: Callable[[], float],
) -> dict[str, Timed]:
    folders = [folder / f"adapter-{number}" for number in range(KEPT)]
    config = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=options.length)
    base: GPT2LMHeadModel = random_gpt2(options.shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers' and PEFT's, about each other
        for place in folders:
            get_peft_model(random_gpt2(options.shape), config).save_pretrained(place)
        model: Any = PeftModel.from_pretrained(base, folders[0], adapter_name="0")
        for number in range(1, options.registered):
            model.load_adapter(folders[number % KEPT], str(number))
    model.eval()
    number = count()

    def load() -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            begun = clock()
            model.load_adapter(folders[next(number) % KEPT], "new")
            spent = clock() - begun
            model.delete_adapter("new")
        return spent

    def change(at: int) -> None:
        model.set_adapter(str(at % options.registered))

    def call() -> object:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return model(input_ids=ids, attention_mask=torch.ones_like(ids))

    def change_and_call() -> object:
        change(next(number))
        return call()

    return {
        "PEFT, load_adapter": load,
        "PEFT, set_adapter": timed(lambda: change(next(number))),
        "PEFT, a call with one prompt": timed(call),
        "PEFT, set_adapter and a call": timed(change_and_call),
    }


def time_round(variants: dict[str, Timed], steps: int, dice: random.Random) -> dict[str, float]:
    """Seconds of each variant for one round: all take turns, in another order each time."""
    seconds = dict.fromkeys(variants, 0.0)
    for _ in range(steps):
        order = list(variants)
        dice.shuffle(order)
        for name in order:
            seconds[name] += variants[name]()
    return seconds


def table(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    lines = [
        f"`{report['command']}`",
        "",
        f"| variant | time ÷ {report['beside']} | min–max |",
        "|---|--:|--:|",
    ]
    for name, figures in report["variants"].items():
        ratios = figures["ratios"]
        lines.append(
            f"| {name} | {figures['median of ratios']:.3f} | {min(ratios):.3f}–{max(ratios):.3f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
