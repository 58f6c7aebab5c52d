"""Memory of a training step under each way to load and run a backbone, as ratios of one run.

    python bench/memory.py                     # a Llama of 134M parameters, batch 10, CPU
    python bench/memory.py --shape small       # 6 layers of width 256: seconds
    python bench/memory.py --method lora       # QLoRA beside LoRA: updates of all linear layers

Every variant is the same random Llama with the same prefix or LoRA, loaded or run in another way,
and takes the same step on the same batch: forward, loss, backward to what is trained. Counted are
the bytes of the tensors themselves, whatever an allocator or the operating system makes of them:

- weights: what of the model lies in memory between two steps;
- kept: what the forward pass leaves for the backward pass, weights that lie in memory left out;
- peak: the most that is there at any time of the step, weights included;
- time: of the step, the median over rounds in which all variants take turns.

Each is divided by that of the first variant. Variants whose package is not installed are left out.
"""

from __future__ import annotations

import argparse
import json
import random
import shlex
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from foreword.backbone import Backbone, load_backbone
from foreword.backbone.layout import Layout, Pair
from foreword.backbone.memory import Alive, held, resident
from foreword.methods import LoRA, MethodOptions, PrefixTuning
from foreword.methods.axes import Table
from foreword.tuned import TunedModel
from foreword.tuned.compose import compose
from training import without_out

SHAPES: Mapping[str, Mapping[str, int]] = {
    "base": {"num_hidden_layers": 12, "hidden_size": 768, "heads": 12, "vocab_size": 32000},
    "small": {"num_hidden_layers": 6, "hidden_size": 256, "heads": 4, "vocab_size": 8192},
    "tiny": {"num_hidden_layers": 2, "hidden_size": 64, "heads": 4, "vocab_size": 128},
}
SOURCE, TARGET = 32, 26
"""Tokens of a row: E2E's averages under GPT-2's tokenizer."""

TORCHAO = {"_type": "Int8WeightOnlyConfig", "_version": 2, "_data": {}}
QUANTIZED: Mapping[str, Mapping[str, Any]] = {
    "8 bits (bitsandbytes)": {"quant_method": "bitsandbytes", "load_in_8bit": True},
    "4 bits (bitsandbytes)": {
        "quant_method": "bitsandbytes",
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
    },
    "8 bits (torchao)": {"quant_method": "torchao", "quant_type": {"default": TORCHAO}},
}


@dataclass(frozen=True)
class Variant:
    """A way to load and run a backbone.

    Attributes:
        name: in the report.
        loading: options of `load_backbone`.
        recomputes: whether with gradient checkpointing.
        arithmetic: of autocast, if there is one.
    """

    name: str
    loading: Mapping[str, Any] = field(default_factory=dict)
    recomputes: bool = False
    arithmetic: torch.dtype | None = None


def variants(method: str = "prefix") -> list[Variant]:
    """All of which the packages are here, and on which the method trains."""
    ways = {
        "float32": {},
        "bfloat16": {"dtype": "bfloat16"},
        **{
            name: {"quantization": how, "dtype": "bfloat16"}
            for name, how in QUANTIZED.items()
            if find_spec(how["quant_method"]) is not None
        },
        **({"float32 on the disk": {"device_map": {"": "disk"}}} if method == "prefix" else {}),
    }
    every = []
    for name, loading in ways.items():
        every.append(Variant(name, loading))
        every.append(Variant(f"{name}, recomputed", loading, recomputes=True))
        if name == "float32":
            every.append(Variant("bfloat16 arithmetic", loading, arithmetic=torch.bfloat16))
        elif method == "lora" and name.startswith(("bfloat16", "4 bits")):
            lower = Variant(f"{name}, bfloat16 arithmetic", loading, arithmetic=torch.bfloat16)
            every += [lower, replace(lower, name=f"{lower.name}, recomputed", recomputes=True)]
    return every


@dataclass
class Trial:
    """A variant, ready; those that are loaded alike share a backbone."""

    variant: Variant
    loaded: Backbone
    model: TunedModel
    layout: Layout

    def forward(self) -> Tensor:
        """The loss."""
        arithmetic = self.variant.arithmetic
        with (
            self.model.backbone.recomputing(self.variant.recomputes),
            torch.autocast("cpu", arithmetic or torch.bfloat16, enabled=arithmetic is not None),
        ):
            return self.model(self.layout).mean()

    def memory(self) -> dict[str, int]:
        """Bytes of a step."""
        known = resident(self.model.backbone.model)
        weights = held(torch.device("cpu"), known)
        with Alive([*known, *self.model.parameters()]) as alive:
            loss = self.forward()
            kept = alive.now
            loss.backward()
        self.model.zero_grad()
        return {"weights": weights, "kept": kept, "peak": weights + alive.peak}

    def seconds(self, clock: Callable[[], float]) -> float:
        """Time of a step."""
        started = clock()
        self.forward().backward()
        spent = clock() - started
        self.model.zero_grad()
        return spent


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print the table."""
    options = _options(arguments)
    transformers_logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    if options.threads:
        torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory(prefix="foreword-memory-") as folder:
        write_checkpoint(Path(folder), options.shape)
        trials: list[Trial] = []
        for variant in variants(options.method):
            same = [one for one in trials if one.variant.loading is variant.loading]
            loaded = same[0].loaded if same else load_backbone(folder, **variant.loading)
            trials.append(prepare(loaded, variant, options))
        figures: dict[str, dict[str, float]] = {}
        for trial in trials:
            trial.forward().backward()  # what is set up once
            trial.model.zero_grad()
            figures[trial.variant.name] = dict(trial.memory())
            _say(f"{trial.variant.name}: {figures[trial.variant.name]}")
        clock = time.process_time if options.clock == "cpu" else time.perf_counter
        times: dict[str, list[float]] = {trial.variant.name: [] for trial in trials}
        dice = random.Random(options.seed)
        for number in range(options.rounds):
            for trial in dice.sample(trials, len(trials)):
                times[trial.variant.name].append(trial.seconds(clock))
            _say(f"round {number + 1}/{options.rounds}")
        for name, spent in times.items():
            if spent:
                figures[name]["time"] = statistics.median(spent)
    report = make_report(options, arguments, figures)
    print(markdown(report))
    if options.out:
        text = json.dumps(report, indent=2, ensure_ascii=False)
        Path(options.out).write_text(text + "\n", encoding="utf-8")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--shape", choices=tuple(SHAPES), default="base")
    parser.add_argument("--method", choices=("prefix", "lora"), default="prefix")
    parser.add_argument("--batch-size", type=int, default=10, help="default %(default)s")
    parser.add_argument("--length", type=int, default=10, help="virtual tokens, P = %(default)s")
    parser.add_argument("--rank", type=int, default=16, help="of LoRA, default %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="of timing, default %(default)s")
    parser.add_argument("--threads", type=int, help="of the CPU; default: torch's")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="file for the ratios as JSON")
    return parser.parse_args(arguments)


def write_checkpoint(folder: Path, shape: str) -> None:
    """A random Llama, and a tokenizer that knows one word: no text is read."""
    sizes = dict(SHAPES[shape])
    heads, width = sizes.pop("heads"), sizes["hidden_size"]
    torch.manual_seed(0)
    config = LlamaConfig(
        **sizes,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        intermediate_size=width * 8 // 3 // 64 * 64,
        max_position_embeddings=1024,
        bos_token_id=0,
        eos_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    words = Tokenizer(WordLevel({"</s>": 0}, unk_token="</s>"))
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>").save_pretrained(folder)


def prepare(backbone: Backbone, variant: Variant, options: argparse.Namespace) -> Trial:
    """A variant with its prefix or LoRA and its batch."""
    torch.manual_seed(options.seed)
    method: MethodOptions = PrefixTuning(
        name="prefix-tuning", length=options.length, reparameterization=Table(std=0.1)
    )
    if options.method == "lora":
        method = LoRA(name="lora", rank=options.rank, dropout=0.0, targets=("all",))
    model = compose(backbone, method)
    dice = random.Random(options.seed)
    vocabulary = backbone.geometry.vocabulary

    def ids(count: int) -> list[int]:
        return [dice.randrange(1, vocabulary) for _ in range(count)]

    pairs = [Pair(ids(SOURCE), ids(TARGET)) for _ in range(options.batch_size)]
    return Trial(variant, backbone, model, model.lay_out(pairs))


def make_report(
    options: argparse.Namespace,
    arguments: Sequence[str] | None,
    figures_by_name: dict[str, dict[str, float]],
) -> dict[str, Any]:
    """Everything as a ratio to the first variant."""
    given = sys.argv[1:] if arguments is None else arguments
    first = next(iter(figures_by_name.values()))
    packages = ("torch", "transformers", "bitsandbytes", "torchao", "foreword")
    return {
        "command": shlex.join(["python", "bench/memory.py", *without_out(given)]),
        "threads": torch.get_num_threads(),
        "versions": {name: version(name) for name in packages if find_spec(name) is not None},
        "shape": {"name": options.shape, **SHAPES[options.shape]},
        "batch_size": options.batch_size,
        "tokens": [SOURCE, TARGET],
        "trained": _trained(options),
        "ratios": {
            name: {what: round(value / first[what], 3) for what, value in figures.items()}
            for name, figures in figures_by_name.items()
        },
    }


def _trained(options: argparse.Namespace) -> str:
    if options.method == "lora":
        return f"LoRA of rank {options.rank} on all linear layers"
    return f"{options.length} virtual tokens"


def markdown(report: dict[str, Any]) -> str:
    """The report as a Markdown table."""
    versions = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    shape = report["shape"]
    lines = [
        f"`{report['command']}`",
        "",
        f"CPU, {report['threads']} thread(s); {versions}; Llama, {shape['num_hidden_layers']} "
        f"layers of width {shape['hidden_size']}, vocabulary {shape['vocab_size']}; "
        f"{report['batch_size']} rows of {SOURCE} and {TARGET} tokens; {report['trained']}.",
        "",
        "| backbone | weights | kept | peak | time |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, ratios in report["ratios"].items():
        cells = [f"{ratios[w]:.2f}" if w in ratios else "" for w in ("weights", "kept", "peak")]
        time_ = f"{ratios['time']:.2f}" if "time" in ratios else ""
        lines.append(f"| {name} | {' | '.join(cells)} | {time_} |")
    return "\n".join(lines)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
