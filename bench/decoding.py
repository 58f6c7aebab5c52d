"""Time of decoding many requests: the step decoder beside transformers' `generate` and its
continuous batching, and many prompts mixed beside one.

    python bench/decoding.py                              # foreword/mini, E2E's development records
    python bench/decoding.py --backbone gpt2 --requests 64    # GPT-2's 124M shape, random weights
    python bench/decoding.py --threads 1 --clock cpu         # on a machine that does other work

Every variant answers the same requests on the same weights, greedily. A request's answer has as
many tokens as its reference (an end token ends it before), so lengths differ as real answers' do;
how many answers of the step decoder and of `generate` differ is reported. Variants take turns in
every round; a figure is the median over rounds of a variant's time for each token it wrote, divided
by that of `generate` at the same batch size in the same round. Requests are sorted by the length of
their source for all variants alike. Continuous batching takes one most for all requests and writes
more tokens than the others, so its time a token is flattered.

transformers carries no prompt in continuous batching, and `generate` takes one only as a prefilled
cache, which is made here by hand.
"""

from __future__ import annotations

import argparse
import json
import random
import shlex
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, GenerationConfig, StoppingCriteria, StoppingCriteriaList
from transformers.utils import logging as transformers_logging

from floor import SHAPES, random_gpt2
from foreword.artifacts.manifest import versions
from foreword.backbone import Backbone, Decoding, load_backbone
from foreword.methods import HardPrompt, PrefixTuning
from foreword.methods.axes import Table
from foreword.tasks import Writing, write_rows
from foreword.tuned import TunedModel
from foreword.tuned.compose import compose
from training import CLOCKS, SHARED, _e2e_lengths, as_backbone

GENERATE = "generate"


@dataclass(frozen=True)
class Request:
    """One input as tokens, and how many tokens its answer may have."""

    source: list[int]
    answer: int


@dataclass(frozen=True)
class Variant:
    """One way to answer all requests: gives each one's new tokens."""

    name: str
    run: Callable[[], list[list[int]]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, and write JSON if a folder is given."""
    options = _options(arguments)
    transformers_logging.set_verbosity_error()
    if options.threads:
        torch.set_num_threads(options.threads)
    backbone = make_backbone(options.backbone)
    requests, lengths = make_requests(options, backbone)
    variants = make_variants(options, backbone, requests)
    _say(f"{len(requests)} requests; {lengths}")
    seconds: dict[str, list[float]] = {variant.name: [] for variant in variants}
    answers: dict[str, list[list[int]]] = {}
    for number in range(options.rounds):
        order = list(variants)
        random.Random(number).shuffle(order)
        for variant in order:
            begun = CLOCKS[options.clock]()
            answers[variant.name] = variant.run()
            seconds[variant.name].append(CLOCKS[options.clock]() - begun)
            _say(f"round {number + 1}/{options.rounds}: {variant.name}")
    report = make_report(options, arguments, lengths, requests, seconds, answers)
    print(table(report))
    if options.out:
        file = Path(options.out) / f"decoding-{options.backbone.replace('/', '-')}-cpu.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument(
        "--backbone", default="foreword/mini", help=f"foreword/mini, or of {', '.join(SHAPES)}"
    )
    parser.add_argument("--requests", type=int, default=547, help="default %(default)s")
    parser.add_argument("--batch-size", type=int, default=32, help="default %(default)s")
    parser.add_argument(
        "--length", type=int, default=10, help="virtual tokens; default %(default)s"
    )
    parser.add_argument("--prompts", type=int, default=16, help="mixed; default %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="default %(default)s")
    parser.add_argument("--threads", type=int, help="of the CPU; default: torch's")
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall")
    parser.add_argument("--without-continuous", action="store_true", help="leave that variant out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="folder for decoding-<backbone>-cpu.json")
    return parser.parse_args(arguments)


def make_backbone(name: str) -> Backbone:
    """A bundled backbone, or one of a shape with random weights."""
    if name not in SHAPES:
        return load_backbone(name, device="cpu")
    return as_backbone(random_gpt2(name))


def make_requests(options: argparse.Namespace, backbone: Backbone) -> tuple[list[Request], str]:
    """Requests of realistic lengths; their tokens are E2E's on a real model, else random."""
    dice = random.Random(options.seed)
    data = SHARED / "data/e2e/devset.csv"
    if options.backbone not in SHAPES and data.is_file():
        from foreword.data import read_examples

        tokens = backbone.tokens
        examples = read_examples(data, "e2e")[: options.requests]
        requests = [
            Request(
                tokens.source(f"{example.fields['record']} ->"),
                len(tokens.target(dice.choice(example.references))),
            )
            for example in examples
        ]
        where = "E2E's development records, one reference each for the length of the answer"
    else:
        pairs = _e2e_lengths(options.requests, dice) or [
            (round(dice.gauss(32, 7)), max(8, round(dice.gauss(26, 8))))
            for _ in range(options.requests)
        ]
        vocabulary = backbone.geometry.vocabulary
        requests = [
            Request([dice.randrange(vocabulary - 1) for _ in range(max(1, source))], answer)
            for source, answer in pairs
        ]
        where = "random tokens of the lengths of a sample of E2E"
    requests.sort(key=lambda request: -len(request.source))
    answers = [request.answer for request in requests]
    return requests, (
        f"{where}: {statistics.mean(len(r.source) for r in requests):.1f} source and "
        f"{statistics.mean(answers):.1f} answer tokens on average, at most {max(answers)}"
    )


def make_variants(
    options: argparse.Namespace, backbone: Backbone, requests: list[Request]
) -> list[Variant]:
    """What is timed."""
    torch.manual_seed(options.seed)
    table = Table(std=0.1)
    models = [
        compose(
            backbone,
            PrefixTuning(name="prefix-tuning", length=options.length, reparameterization=table),
        ).requires_grad_(False)
        for _ in range(options.prompts)
    ]
    bare = compose(backbone, HardPrompt(name="hard-prompt"))
    size = options.batch_size

    def steps(chosen: Callable[[int], TunedModel], rows: int) -> Callable[[], list[list[int]]]:
        return lambda: _by_steps(requests, chosen, rows)

    variants = [
        Variant(GENERATE, lambda: _generate(backbone, models[0], requests, size)),
        Variant("generate, again", lambda: _generate(backbone, models[0], requests, size)),
        Variant("steps, one prompt", steps(lambda _: models[0], size)),
        Variant(f"steps, {len(models)} prompts", steps(lambda i: models[i % len(models)], size)),
        Variant("generate, no prompt", lambda: _generate(backbone, None, requests, size)),
        Variant("steps, no prompt", steps(lambda _: bare, size)),
    ]
    variants += [
        Variant(
            f"generate, batches of {other}",
            lambda other=other: _generate(backbone, models[0], requests, other),  # type: ignore[misc]
        )
        for other in (8, 64, 128)
        if other != size
    ]
    if not options.without_continuous:
        variants.append(
            Variant("continuous batching, no prompt", lambda: _continuous(backbone, requests))
        )
    return variants


def _by_steps(
    requests: list[Request], chosen: Callable[[int], TunedModel], rows: int
) -> list[list[int]]:
    writing = [
        Writing(chosen(i), request.source, Decoding(max_new_tokens=request.answer))
        for i, request in enumerate(requests)
    ]
    return write_rows(writing, batch_size=rows)


class _Enough(StoppingCriteria):  # type: ignore[misc]
    """Ends each row at its own number of tokens."""

    def __init__(self, start: int, answers: list[int]) -> None:
        self.start, self.answers = start, torch.tensor(answers)

    def __call__(self, ids: Tensor, scores: Any, **_: Any) -> Tensor:  # noqa: ARG002
        done: Tensor = ids.shape[1] - self.start >= self.answers
        return done


@torch.no_grad()
def _generate(
    backbone: Backbone, model: TunedModel | None, requests: list[Request], size: int
) -> list[list[int]]:
    """transformers' `generate` on padded batches, the prompt in a cache that is filled by hand."""
    prompt = None if model is None else model.prompt()
    tokens = None if prompt is None else prompt.sites["decoder"]
    end, texts = backbone.tokens.eos_id, []
    for start in range(0, len(requests), size):
        batch = requests[start : start + size]
        width = max(len(request.source) for request in batch)
        ids = torch.zeros(len(batch), width, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, request in enumerate(batch):
            ids[row, width - len(request.source) :] = torch.tensor(request.source)
            mask[row, width - len(request.source) :] = 1
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        given: dict[str, Any] = {}
        if tokens is not None:
            cache = DynamicCache(config=backbone.model.config)
            for layer in tokens.layers:
                front = tokens.front(layer)
                assert front is not None
                cache.update(*front.of_rows(len(batch), backbone.model.dtype), layer)
            given["past_key_values"] = cache
            mask = torch.cat([torch.ones(len(batch), tokens.length, dtype=torch.long), mask], 1)
            positions = positions + tokens.length
        answers = [request.answer for request in batch]
        output = backbone.model.generate(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            generation_config=GenerationConfig(
                max_new_tokens=max(answers),
                eos_token_id=end if end >= 0 else None,
                pad_token_id=max(end, 0),
                do_sample=False,
            ),
            stopping_criteria=StoppingCriteriaList([_Enough(width, answers)]),
            **given,
        )
        for row, answer in zip(output[:, width:].tolist(), answers, strict=True):
            row = row[:answer]
            texts.append(row[: row.index(end)] if end in row else row)
    return texts


@torch.no_grad()
def _continuous(backbone: Backbone, requests: list[Request]) -> list[list[int]]:
    """transformers' continuous batching, which takes one most for all requests."""
    end = backbone.tokens.eos_id
    longest = max(request.answer for request in requests)
    attention = backbone.model.config._attn_implementation
    backbone.model.set_attn_implementation("sdpa")
    try:
        config = GenerationConfig(
            max_new_tokens=longest, eos_token_id=end, pad_token_id=end, do_sample=False
        )
        output = backbone.model.generate_batch(
            inputs=[request.source for request in requests], generation_config=config
        )
    finally:
        backbone.model.set_attn_implementation(attention)
    texts = [list(one.generated_tokens) for one in output.values()]
    return [row[: row.index(end)] if end in row else row for row in texts]


def make_report(
    options: argparse.Namespace,
    arguments: Sequence[str] | None,
    lengths: str,
    requests: list[Request],
    seconds: dict[str, list[float]],
    answers: dict[str, list[list[int]]],
) -> dict[str, Any]:
    """Ratios, tokens that were written, and what differed."""
    given = sys.argv[1:] if arguments is None else arguments
    report: dict[str, Any] = {
        "command": shlex.join(["python", "bench/decoding.py", *given]),
        "lengths": lengths,
        "requests": len(requests),
        "threads": torch.get_num_threads(),
        "clock": options.clock,
        "versions": versions(),
        "variants": {},
    }
    base = {name: "generate, no prompt" if "no prompt" in name else GENERATE for name in seconds}
    for name, values in seconds.items():
        tokens = sum(map(len, answers[name]))
        ratios = [
            own / other * sum(map(len, answers[base[name]])) / tokens
            for own, other in zip(values, seconds[base[name]], strict=True)
        ]
        report["variants"][name] = {
            "beside": base[name],
            "time per token, median of ratios": statistics.median(ratios),
            "ratios": ratios,
            "tokens": tokens,
        }
    same = answers[GENERATE]
    report["answers that differ, steps and generate"] = sum(
        one != other for one, other in zip(same, answers["steps, one prompt"], strict=True)
    )
    return report


def table(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    lines = [
        f"`{report['command']}`",
        "",
        report["lengths"],
        "",
        "| variant | beside | time a token ÷ its | min–max |",
        "|---|---|--:|--:|",
    ]
    for name, figures in report["variants"].items():
        ratios = figures["ratios"]
        lines.append(
            f"| {name} | {figures['beside']} | "
            f"{figures['time per token, median of ratios']:.2f} | "
            f"{min(ratios):.2f}–{max(ratios):.2f} |"
        )
    return "\n".join(lines)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
