"""Throughput of the serving engine beside `generate`, PEFT and transformers' continuous batching.

    python bench/serving.py --threads 1 --clock cpu                  # foreword/mini
    python bench/serving.py --backbone gpt2 --requests 16            # GPT-2's 124M shape
    python bench/serving.py --backbone 34m                           # a decoder of 34 M parameters
    python bench/serving.py --backbone /models/smollm2-135m-instruct # a real one

Requests are those of bench/decoding.py: inputs of E2E's lengths, each answered greedily with as
many tokens as its reference; no token ends an answer before, so all variants write as many. The
engine answers them bare, with one prefix, and with 16 prefixes mixed; `generate` in one static
batch with one prefix, and without; PEFT switches its adapter from request to request. Variants take
turns in every round, the engine's and `generate`'s `--turns` times; a figure is the median over
rounds of tokens in a second, divided by those of the variant it stands beside in the same round.

bench/serving_load.py has latency by load, and what thousands of registered prompts cost.
"""

from __future__ import annotations

import argparse
import json
import random
import shlex
import statistics
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, PrefixTuningConfig, get_peft_model
from transformers import ContinuousBatchingConfig, GenerationConfig
from transformers.utils import logging as transformers_logging

from decoding import Request, _generate, make_requests
from floor import SHAPES, random_gpt2
from foreword.artifacts.manifest import versions
from foreword.backbone import Backbone, Decoding, Tokens, Written, load_backbone
from foreword.methods import HardPrompt, PrefixTuning
from foreword.methods.axes import Table
from foreword.serving import Engine, EngineOptions, Job, Told
from foreword.tasks import Writing
from foreword.tuned import TunedModel
from foreword.tuned.compose import compose
from training import CLOCKS, as_backbone

BARE, MIXED, ONE = "engine, no prompt", "engine, prompts mixed", "engine, one prompt"
STATIC, STATIC_BARE = "generate, one batch, one prompt", "generate, one batch, no prompt"
PEFT, CONTINUOUS = "PEFT, adapter by adapter", "continuous batching, no prompt"
SLOW = (PEFT, CONTINUOUS)
"""Take one turn in a round."""
BESIDE = (
    (MIXED, BARE, 0.95),
    (MIXED, STATIC, 1.0),
    (MIXED, PEFT, 5.0),
    (MIXED, ONE, None),
    (BARE, STATIC_BARE, 1.0),
    (BARE, CONTINUOUS, None),
)
"""A variant, the one it stands beside, and what is asked of their ratio."""
CHUNK = 2048
"""Tokens of inputs that are read in a step."""
PAGE = 32


class Endless(Tokens):
    """Tokens of which none ends an answer."""

    eos_id = -1


@dataclass
class Timed:
    """When a request's answer came.

    Attributes:
        asked: when the request came.
        clock: tells the time.
        first, last: when its first and last token came.
        tokens: of its answer.
        error: what it failed by.
    """

    asked: float = 0.0
    clock: Callable[[], float] = time.perf_counter
    first: float = 0.0
    last: float = 0.0
    tokens: list[int] = field(default_factory=list)
    error: Exception | None = None
    ended: threading.Event = field(default_factory=threading.Event)

    def __call__(self, event: Written | Told) -> None:
        """Hear of a step."""
        assert isinstance(event, Written)
        now = self.clock()
        if event.token is not None:
            self.first = self.first or now
            self.tokens.append(event.token)
        if event.ended is not None:
            self.last, self.error = now, event.error
            self.ended.set()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the tables, and write JSON if a folder is given."""
    options = _options(arguments)
    backbone, requests, models, report = prepared(options, "serving", arguments)
    bare = compose(backbone, HardPrompt(name="hard-prompt"))
    report |= throughput(options, backbone, requests, models, bare)
    print(table(report))
    if options.out:
        even = "-even" if options.even else ""
        name = f"serving-{named(options.backbone)}-{len(requests)}{even}-cpu"
        write(report, Path(options.out), name)
    return 0


def named(backbone: str) -> str:
    """A model's name without the folders before it."""
    return Path(backbone).name


def write(report: dict[str, Any], folder: Path, name: str) -> None:
    """Write a report as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
    (folder / f"{name}.json").write_text(text, encoding="utf-8")


def prepared(
    options: argparse.Namespace, script: str, arguments: Sequence[str] | None
) -> tuple[Backbone, list[Request], list[TunedModel], dict[str, Any]]:
    """The backbone, requests, prefixes, and what a report says of them."""
    transformers_logging.set_verbosity_error()
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    backbone = make_backbone(options.backbone)
    requests, lengths = make_requests(options, backbone)
    if options.even:
        requests, lengths = _even(options, backbone)
    own = {each.name: getattr(backbone.tokens, each.name) for each in fields(Tokens)}
    backbone = replace(backbone, tokens=Endless(**own))
    models = [prefix_of(backbone, options.length) for _ in range(options.prompts)]
    given = list(sys.argv[1:] if arguments is None else arguments)
    if "/" in options.backbone and Path(options.backbone).is_dir():
        given = [named(arg) if arg == options.backbone else arg for arg in given]
    return (
        backbone,
        requests,
        models,
        {
            "command": shlex.join(["python", f"bench/{script}.py", *given]),
            "lengths": f"{lengths}; {options.prompts} prefixes of {options.length} virtual tokens",
            "requests": len(requests),
            "threads": torch.get_num_threads(),
            "clock": options.clock,
            "versions": versions(),
        },
    )


def _even(options: argparse.Namespace, backbone: Backbone) -> tuple[list[Request], str]:
    """Requests that are all as long, as those of bench/serving_vllm.py."""
    dice, (source, answer) = random.Random(options.seed), options.even
    last = backbone.geometry.vocabulary - 1
    requests = [
        Request([dice.randint(1, last) for _ in range(source)], answer)
        for _ in range(options.requests)
    ]
    return requests, f"random tokens, {source} of source and {answer} of answer each"


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """The flags of every benchmark of serving."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n\n")[0])
    shapes = ", ".join(SHAPES)
    parser.add_argument("--backbone", default="foreword/mini", help=f"a model, or {shapes}")
    parser.add_argument("--requests", type=int, default=64, help="default %(default)s")
    parser.add_argument("--length", type=int, default=10, help="virtual tokens; %(default)s")
    parser.add_argument("--prompts", type=int, default=16, help="mixed; default %(default)s")
    parser.add_argument(
        "--even", type=int, nargs=2, metavar=("SOURCE", "ANSWER"), help="all requests as long"
    )
    parser.add_argument("--threads", type=int, help="of the CPU; default: torch's")
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="folder for the report")
    return parser


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="default %(default)s")
    parser.add_argument("--turns", type=int, default=3, help="of a round; default %(default)s")
    parser.add_argument("--without", action="append", default=[], help="a variant to leave out")
    return parser.parse_args(arguments)


def make_backbone(name: str) -> Backbone:
    """A model by its name or folder, or of a shape with random weights."""
    if name in SHAPES:
        return as_backbone(random_gpt2(name))
    return load_backbone(name, device="cpu")


def prefix_of(backbone: Backbone, length: int) -> TunedModel:
    """A prefix of random keys and values."""
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
    engine_options = EngineOptions(rows=size, queue=size, chunk=CHUNK)
    with Engine(backbone, engine_options) as engine:

        def served(chosen: Callable[[int], TunedModel]) -> Callable[[], list[list[int]]]:
            return lambda: served_by(engine, requests, chosen)

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
        answers: dict[str, list[list[int]]] = {}
        for number in range(options.rounds):
            order = [name for name in variants for _ in range(1 if name in SLOW else options.turns)]
            random.Random(number).shuffle(order)
            tokens, seconds = dict.fromkeys(variants, 0), dict.fromkeys(variants, 0.0)
            for name in order:
                begun = CLOCKS[options.clock]()
                answers[name] = variants[name]()
                seconds[name] += CLOCKS[options.clock]() - begun
                lengths = [len(answer) for answer in answers[name]]
                assert lengths == [request.answer for request in requests], name
                tokens[name] += sum(lengths)
            for name in variants:
                speeds[name].append(tokens[name] / seconds[name])
            say(f"round {number + 1}/{options.rounds}")
    return {
        "tokens a second": speeds,
        "ratios": [_ratio(speeds, *each) for each in BESIDE if {*each[:2]} <= {*speeds}],
        "answers of one prompt that differ, engine and generate": sum(
            one != other
            for one, other in zip(answers.get(ONE, ()), answers.get(STATIC, ()), strict=False)
        ),
    }


def _ratio(
    speeds: dict[str, list[float]], name: str, beside: str, asked: float | None
) -> dict[str, Any]:
    ratios = [own / other for own, other in zip(speeds[name], speeds[beside], strict=True)]
    median = statistics.median(ratios)
    return {"of": name, "beside": beside, "asked": asked, "median": median, "ratios": ratios}


def _continuous(backbone: Backbone, requests: list[Request]) -> list[list[int]]:
    """transformers' continuous batching: begun for these requests, with memory for them. What it
    takes if it is not told clears most of the machine's memory, which would be most of the time."""
    end = backbone.tokens.eos_id
    longest = max(len(request.source) for request in requests)
    longest += max(request.answer for request in requests)
    blocks = len(requests) * (longest // PAGE + 1)
    attention = backbone.model.config._attn_implementation
    backbone.model.set_attn_implementation("sdpa")
    try:
        with backbone.model.continuous_batching_context_manager(
            GenerationConfig(eos_token_id=end, pad_token_id=0, do_sample=False),
            timeout=5,
            continuous_batching_config=ContinuousBatchingConfig(
                page_size=PAGE, num_blocks=blocks, max_batch_tokens=CHUNK
            ),
        ) as manager:
            names = [
                manager.add_request(request.source, max_new_tokens=request.answer, eos_token_id=end)
                for request in requests
            ]
            answers: dict[str, list[int]] = {}
            while len(answers) < len(requests):
                result = manager.get_result(timeout=5)
                if result is not None and result.is_finished():
                    answers[result.request_id] = list(result.generated_tokens)
    finally:
        backbone.model.set_attn_implementation(attention)
    return [answers[name] for name in names]


def served_by(
    engine: Engine, requests: list[Request], chosen: Callable[[int], TunedModel]
) -> list[list[int]]:
    """Answer requests that come together, each with the model that is chosen for its number."""
    heard = [Timed() for _ in requests]
    engine.submit(
        [Job(writing(chosen(i), request), heard[i]) for i, request in enumerate(requests)]
    )
    for one in heard:
        one.ended.wait()
        assert one.error is None, one.error
    return [one.tokens for one in heard]


def writing(model: TunedModel, request: Request) -> Writing:
    """An answer of as many tokens as a request has."""
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


def table(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    lines = [f"`{report['command']}`", "", report["lengths"], ""]
    lines += ["| variant | beside | speed ÷ its | min–max | asked |", "|---|---|--:|--:|--:|"]
    for own in report["ratios"]:
        lines.append(
            f"| {own['of']} | {own['beside']} | {own['median']:.2f} | "
            f"{min(own['ratios']):.2f}–{max(own['ratios']):.2f} | {own['asked'] or ''} |"
        )
    return "\n".join(lines)


def say(text: str) -> None:
    """Tell how far it is."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
