"""Throughput of the serving engine beside `generate` and PEFT, and latency by load.

    python bench/serving.py --threads 1 --clock cpu                  # foreword/mini
    python bench/serving.py --backbone gpt2 --requests 16            # GPT-2's 124M shape
    python bench/serving.py --backbone 34m                           # a decoder of 34 M parameters
    python bench/serving.py --backbone /models/smollm2-135m-instruct # a real one

Requests are those of bench/decoding.py: inputs of E2E's lengths, each answered greedily with as
many tokens as its reference (an end token ends it before), for all variants alike.
The engine answers them bare, with one prefix, and with 16 prefixes mixed; `generate` in one static
batch with one prefix, and without; PEFT switches its adapter from request to request. Variants take
turns in every round; a figure is the median over rounds of tokens in a second, divided by those of
the variant it stands beside in the same round.

Further: time of a step with 10 and with thousands of prompts registered; and, with `--load`,
requests that arrive at random (Poisson) at shares of what the engine can do at most, their times to
the first and the last token divided by those of a request that comes alone.
"""

from __future__ import annotations

import argparse
import json
import random
import shlex
import statistics
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, PrefixTuningConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.utils import logging as transformers_logging

from decoding import Request, _continuous, _generate, make_requests
from floor import SHAPES, random_gpt2
from foreword.artifacts.artifact import save_artifact
from foreword.artifacts.manifest import versions
from foreword.backbone import Backbone, Decoding, Written, load_backbone
from foreword.methods import HardPrompt, PrefixTuning
from foreword.methods.axes import Table
from foreword.recipe import TaskId
from foreword.serving import Engine, EngineOptions, Job, PromptStore, Told
from foreword.tasks import Writing
from foreword.tuned import TunedModel
from foreword.tuned.compose import compose
from training import CLOCKS, as_backbone

M34 = {"n_layer": 8, "n_embd": 512, "n_head": 8, "vocab_size": 16384, "n_positions": 512}
"""34 M parameters."""
LOADS = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 1.0, 1.2)
BARE, MIXED, ONE = "engine, no prompt", "engine, prompts mixed", "engine, one prompt"
STATIC, STATIC_BARE = "generate, one batch, one prompt", "generate, one batch, no prompt"
PEFT, CONTINUOUS = "PEFT, adapter by adapter", "continuous batching, no prompt"
BESIDE = {
    BARE: STATIC_BARE,
    ONE: STATIC,
    MIXED: BARE,
    PEFT: MIXED,
    STATIC: STATIC,
    STATIC_BARE: STATIC_BARE,
    CONTINUOUS: BARE,
}
"""What each variant's figure is divided by."""


@dataclass
class Timed:
    """When a request's answer came.

    Attributes:
        asked: when the request came.
        first, last: of its tokens.
        tokens: of its answer.
    """

    asked: float = 0.0
    first: float = 0.0
    last: float = 0.0
    tokens: list[int] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def __call__(self, event: Written | Told) -> None:
        """Hear of a step."""
        assert isinstance(event, Written)
        assert event.error is None, event.error
        now = time.perf_counter()
        if event.token is not None:
            self.first = self.first or now
            self.tokens.append(event.token)
        if event.ended is not None:
            self.last = now
            self.ended.set()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the tables, and write JSON and a plot if a folder is given."""
    options = _options(arguments)
    transformers_logging.set_verbosity_error()
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    backbone = make_backbone(options.backbone)
    requests, lengths = make_requests(options, backbone)
    models = [_prefix(backbone, options.length) for _ in range(options.prompts)]
    bare = compose(backbone, HardPrompt(name="hard-prompt"))
    report: dict[str, Any] = {
        "command": shlex.join(["python", "bench/serving.py", *(arguments or sys.argv[1:])]),
        "lengths": f"{lengths}; {options.prompts} prefixes of {options.length} virtual tokens",
        "requests": len(requests),
        "threads": torch.get_num_threads(),
        "clock": options.clock,
        "versions": versions(),
        "throughput": throughput(options, backbone, requests, models, bare),
    }
    if options.registered:
        report["registered"] = registered(options, backbone, requests)
    if options.load:
        report["load"] = by_load(options, backbone, requests, models)
    print(table(report))
    if options.out:
        name = Path(options.backbone).name.replace("/", "-")
        folder = Path(options.out)
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"serving-{name}-{len(requests)}-cpu.json"
        file.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        if options.load:
            draw(report["load"], folder / f"serving-{name}.png")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    shapes = ", ".join((*SHAPES, "34m"))
    parser.add_argument("--backbone", default="foreword/mini", help=f"a model, or {shapes}")
    parser.add_argument("--requests", type=int, default=64, help="default %(default)s")
    parser.add_argument("--length", type=int, default=10, help="virtual tokens; %(default)s")
    parser.add_argument("--prompts", type=int, default=16, help="mixed; default %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="default %(default)s")
    parser.add_argument("--threads", type=int, help="of the CPU; default: torch's")
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall")
    parser.add_argument("--registered", type=int, default=0, help="prompts, such as 5000")
    parser.add_argument("--load", action="store_true", help="latency by load, wall clock")
    parser.add_argument("--without", action="append", default=[], help="a variant to leave out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="folder for the report and the plot")
    return parser.parse_args(arguments)


def make_backbone(name: str) -> Backbone:
    """A model by its name or folder, or of a shape with random weights."""
    if name == "34m":
        end = M34["vocab_size"] - 1
        config = GPT2Config(
            **M34,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=end,
            eos_token_id=end,
            attn_implementation="sdpa",
        )
        torch.manual_seed(0)
        return as_backbone(GPT2LMHeadModel(config).eval().requires_grad_(False))
    if name in SHAPES:
        return as_backbone(random_gpt2(name))
    return load_backbone(name, device="cpu")


def _prefix(backbone: Backbone, length: int) -> TunedModel:
    options = PrefixTuning(name="prefix-tuning", length=length, reparameterization=Table(std=0.1))
    return compose(backbone, options).requires_grad_(False)


def throughput(
    options: argparse.Namespace,
    backbone: Backbone,
    requests: list[Request],
    models: list[TunedModel],
    bare: TunedModel,
) -> dict[str, Any]:
    """Tokens in a second of each variant, divided by those of what it stands beside."""
    size = len(requests)
    engine_options = EngineOptions(rows=size, queue=size, chunk=2048)
    with Engine(backbone, engine_options) as engine:

        def served(chosen: Callable[[int], TunedModel]) -> Callable[[], list[list[int]]]:
            return lambda: _served(engine, requests, chosen)

        variants: dict[str, Callable[[], list[list[int]]]] = {
            BARE: served(lambda _: bare),
            ONE: served(lambda _: models[0]),
            MIXED: served(lambda i: models[i % len(models)]),
            STATIC: lambda: _generate(backbone, models[0], requests, size),
            STATIC_BARE: lambda: _generate(backbone, None, requests, size),
            CONTINUOUS: lambda: _continuous(backbone, requests),
        }
        peft = _peft(backbone, options.length, options.prompts)
        if peft is not None:
            variants[PEFT] = lambda: _switched(peft, requests, options.prompts)
        for name in options.without:
            variants.pop(name)
        speeds: dict[str, list[float]] = {name: [] for name in variants}
        for number in range(options.rounds):
            order = list(variants)
            random.Random(number).shuffle(order)
            for name in order:
                begun = CLOCKS[options.clock]()
                tokens = sum(map(len, variants[name]()))
                speeds[name].append(tokens / (CLOCKS[options.clock]() - begun))
                _say(f"round {number + 1}/{options.rounds}: {name}")
    found = {}
    for name, values in speeds.items():
        beside = BESIDE[name] if BESIDE[name] in speeds else name
        ratios = [own / other for own, other in zip(values, speeds[beside], strict=True)]
        found[name] = {
            "beside": beside,
            "speed, median of ratios": statistics.median(ratios),
            "ratios": ratios,
            "tokens a second": values,
        }
    return found


def _served(
    engine: Engine, requests: list[Request], chosen: Callable[[int], TunedModel]
) -> list[list[int]]:
    heard = [Timed() for _ in requests]
    engine.submit(
        [Job(_writing(chosen(i), request), heard[i]) for i, request in enumerate(requests)]
    )
    for one in heard:
        one.ended.wait()
    return [one.tokens for one in heard]


def _writing(model: TunedModel, request: Request) -> Writing:
    return Writing(model, request.source, Decoding(max_new_tokens=request.answer))


def _peft(backbone: Backbone, length: int, many: int) -> PeftModel | None:
    """PEFT's model with so many prefixes, on the same weights as transformers runs them."""
    import copy

    model = copy.deepcopy(backbone.model)
    model.set_attn_implementation("sdpa")
    config = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=length)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = get_peft_model(model, config, adapter_name="p0")
        for number in range(1, many):
            found.add_adapter(f"p{number}", config)
    return found.eval()


@torch.no_grad()
def _switched(model: PeftModel, requests: list[Request], many: int) -> list[list[int]]:
    """Request by request, each with its own adapter."""
    found = []
    for number, request in enumerate(requests):
        model.set_adapter(f"p{number % many}")
        ids = torch.tensor([request.source])
        output = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=request.answer,
            do_sample=False,
            pad_token_id=model.generation_config.eos_token_id or 0,
        )
        found.append(output[0, ids.shape[1] :].tolist())
    return found


def registered(
    options: argparse.Namespace, backbone: Backbone, requests: list[Request]
) -> dict[str, Any]:
    """Seconds of a step with many prompts registered, divided by those with ten; both in memory of
    the same size, the same prompts asked for."""
    with tempfile.TemporaryDirectory() as folder:
        for number in range(10):
            model = _prefix(backbone, options.length)
            save_artifact(
                Path(folder) / f"p{number}",
                model,
                name=f"p{number}",
                method=PrefixTuning(
                    name="prefix-tuning", length=options.length, reparameterization=Table()
                ),
                task=TaskId(input="{text}", target="{reference}"),
            )
        few, many = PromptStore(backbone), PromptStore(backbone)
        begun = CLOCKS[options.clock]()
        for number in range(options.registered):
            if number < 10:
                few.add(f"p{number}", Path(folder) / f"p{number}")
            many.add(f"p{number}", Path(folder) / f"p{number % 10}")
        adding = (CLOCKS[options.clock]() - begun) / (options.registered + 10)
        ratios = []
        with Engine(backbone, EngineOptions(rows=len(requests), queue=len(requests))) as engine:
            for number in range(options.rounds):
                seconds = {}
                stores = {"few": few, "many": many}
                order = sorted(stores, reverse=bool(number % 2))
                for name in order:
                    store = stores[name]
                    counts = engine.counts
                    steps, begun = counts.steps, CLOCKS[options.clock]()
                    _served(engine, requests, lambda i, s=store: s.get(f"p{i % 10}").model)  # type: ignore[misc]
                    spent = CLOCKS[options.clock]() - begun
                    seconds[name] = spent / (counts.steps - steps)
                ratios.append(seconds["many"] / seconds["few"])
                _say(f"registered, round {number + 1}/{options.rounds}")
    return {
        "few": 10,
        "many": options.registered,
        "step time, median of ratios": statistics.median(ratios),
        "ratios": ratios,
        "seconds to add one": adding,
    }


def by_load(
    options: argparse.Namespace,
    backbone: Backbone,
    requests: list[Request],
    models: list[TunedModel],
) -> dict[str, Any]:
    """Times to the first and the last token at each load, divided by the median of a request that
    comes alone."""
    dice = random.Random(options.seed)
    size = len(requests)
    with Engine(backbone, EngineOptions(rows=size, queue=10**6)) as engine:

        def ask(number: int) -> Timed:
            request, heard = requests[number % size], Timed(answers=time.perf_counter())
            engine.submit([Job(_writing(models[number % len(models)], request), heard)])
            return heard

        alone = []
        for number in range(min(12, size)):
            heard = ask(number)
            heard.ended.wait()
            alone.append(heard)
        begun = time.perf_counter()
        for heard in [ask(number) for number in range(3 * size)]:
            heard.ended.wait()
        most = 3 * size / (time.perf_counter() - begun)
        first = statistics.median(one.first - one.asked for one in alone)
        last = statistics.median(one.last - one.asked for one in alone)
        found = []
        for load in LOADS:
            answers, due = [], time.perf_counter()
            for number in range(max(60, 2 * size)):
                due += dice.expovariate(load * most)
                time.sleep(max(0.0, due - time.perf_counter()))
                answers.append(ask(number))
            for heard in answers:
                heard.ended.wait()
            firsts = sorted((one.first - one.asked) / first for one in answers)
            lasts = sorted((one.last - one.asked) / last for one in answers)
            found.append(
                {
                    "load": load,
                    **{f"first, {p} %": _percentile(firsts, p) for p in (50, 90, 99)},
                    **{f"whole, {p} %": _percentile(lasts, p) for p in (50, 90, 99)},
                }
            )
            _say(f"load {load}")
    return {
        "requests a second at most": most,
        "alone, seconds to the first token": first,
        "alone, seconds": last,
        "loads": found,
    }


def _percentile(ordered: Sequence[float], percent: int) -> float:
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def table(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    lines = [f"`{report['command']}`", "", report["lengths"], ""]
    lines += ["| variant | beside | speed ÷ its | min–max |", "|---|---|--:|--:|"]
    for name, figures in report["throughput"].items():
        ratios = figures["ratios"]
        lines.append(
            f"| {name} | {figures['beside']} | {figures['speed, median of ratios']:.2f} | "
            f"{min(ratios):.2f}–{max(ratios):.2f} |"
        )
    if "registered" in report:
        own = report["registered"]
        lines += ["", f"step with {own['many']} prompts registered ÷ with {own['few']}: "]
        lines[-1] += f"{own['step time, median of ratios']:.3f}"
    if "load" in report:
        lines += ["", "| load | first token ÷ alone: 50, 90, 99 % | whole ÷ alone |", "|--:|--|--|"]
        for one in report["load"]["loads"]:
            shown = [
                ", ".join(f"{one[f'{what}, {p} %']:.1f}" for p in (50, 90, 99))
                for what in ("first", "whole")
            ]
            lines.append(f"| {one['load']} | {shown[0]} | {shown[1]} |")
    return "\n".join(lines)


def draw(load: dict[str, Any], file: Path) -> None:
    """Percentiles by load."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.2), sharex=True)
    for axis, what, title in zip(
        axes, ("first", "whole"), ("first token", "whole answer"), strict=True
    ):
        for percent in (50, 90, 99):
            axis.plot(
                [one["load"] for one in load["loads"]],
                [one[f"{what}, {percent} %"] for one in load["loads"]],
                marker="o",
                label=f"{percent} %",
            )
        axis.set(xlabel="arrivals ÷ most that is answered", ylabel=f"{title} ÷ alone", yscale="log")
        axis.grid(alpha=0.3)
        axis.legend()
    figure.tight_layout()
    figure.savefig(file, dpi=120)
    pyplot.close(figure)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
