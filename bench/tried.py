"""What was tried on a CPU and is not built in: a compiled backbone, a head without its logits, ways
to bear a mask.

    python bench/tried.py --threads 1

- compiled: `torch.compile` of GPT-2's layers for one shape of batch, forward and backward, against
  the same without it (`bench/steps.py`'s floor);
- chunked: torch's `linear_cross_entropy` (from torch 2.13) on chunks of 64 positions, against the
  head's logits and their cross entropy, both with the gradient at the states;
- masked: a step of `bench/growth.py`'s Llama over its longest source with an explicit causal mask,
  against the same with none (`is_causal`), where the kernel leaves out what no query sees; the
  masked one compiled, too, and with its attention in chunks of 256 queries, each over the keys up
  to its own end.

Each figure is a ratio of processor time of one run: the median over rounds in which all take
turns, and the smallest and largest. Compiling itself is not in them. `--only masked` measures one.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from foreword.backbone.layout import Layout
from foreword.backbone.modules.activations import fuse_activations
from growth import AXES, BASES, llama
from shapes import SHAPES, make_model
from steps import floor_loss

CHUNK, QUERIES = 64, 256


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    options = _options(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    for name in options.only or TRIES:
        if name == "chunked" and not hasattr(nn.functional, "linear_cross_entropy"):
            continue
        for what, ratios in in_turns(TRIES[name](options), options.rounds).items():
            low, high = min(ratios), max(ratios)
            print(f"{what}: {statistics.median(ratios):.2f} ({low:.2f} to {high:.2f})", flush=True)


def compiled(options: argparse.Namespace) -> dict[str, Callable[[], Any]]:
    """The floor without and with a compiled backbone."""
    layout, models = _layout(options), {}
    for name in ("plain", "compiled"):
        models[name] = make_model(options.shape)
        fuse_activations(models[name])
    models["compiled"].transformer.compile(dynamic=False, backend=options.backend)
    head = nn.Linear(1, 1)  # which tells labels, and is not asked
    return {
        name: lambda model=model: floor_loss(model, layout, head) for name, model in models.items()
    }


def chunked(options: argparse.Namespace) -> dict[str, Callable[[], Any]]:
    """Loss and gradient from states to targets, with all logits and without."""
    weight = make_model(options.shape).get_output_embeddings().weight
    targets = _layout(options).target_ids()
    states = torch.randn(len(targets), weight.shape[1])

    def run(loss: Callable[[Tensor], Tensor]) -> Callable[[], Any]:
        def step() -> Any:
            given = states.clone().requires_grad_()
            return torch.autograd.grad(loss(given), given)

        return step

    def whole(given: Tensor) -> Tensor:
        return nn.functional.cross_entropy(given @ weight.T, targets, reduction="sum")

    def in_chunks(given: Tensor) -> Tensor:
        how = nn.LinearCrossEntropyOptions(batch_chunk_size=CHUNK, chunking_method=None)
        return nn.functional.linear_cross_entropy(
            given, weight, targets, reduction="sum", options=how
        )

    return {"whole": run(whole), "chunked": run(in_chunks)}


def masked(options: argparse.Namespace) -> dict[str, Callable[[], Any]]:
    """A step over a long text by its attention: without a mask, and with one in three ways."""
    size = "tiny" if options.shape.startswith("tiny") else "small"
    point = replace(BASES[size], source=AXES[size]["source"][-1])
    layout = _random_layout(point.rows, point.source, point.target)
    ways = {
        "causal": "sdpa",
        "masked": _attention("masked", sdpa_attention_forward),
        "masked, compiled": _attention("masked", sdpa_attention_forward),
        "masked, in chunks of queries": _attention("masked-in-chunks", _by_queries),
    }
    head, runs = nn.Linear(1, 1), dict[str, Callable[[], Any]]()
    for name, attention in ways.items():
        torch.manual_seed(0)
        model = llama(point).eval().requires_grad_(False)
        model.set_attn_implementation(attention)
        if name == "masked, compiled":
            model.model.compile(dynamic=False, backend=options.backend)
        runs[name] = lambda model=model: floor_loss(model, layout, head)
    return runs


def _attention(name: str, function: Callable[..., Any]) -> str:
    """Has transformers know an attention that always gets a mask, by a name of its own."""

    def mask(*given: Any, **options: Any) -> Any:
        return sdpa_mask(*given, **{**options, "allow_is_causal_skip": False})

    AttentionInterface.register(f"tried-{name}", function)
    AttentionMaskInterface.register(f"tried-{name}", mask)
    return f"tried-{name}"


def _by_queries(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, **given: Any
) -> tuple[Tensor, None]:
    """Attention of so many queries at a time, `[B, heads, Q, head_dim]`, over the keys up to the
    last of them."""
    outputs = []
    for begin in range(0, query.shape[2], QUERIES):
        end = min(begin + QUERIES, query.shape[2])
        output, _ = sdpa_attention_forward(
            module,
            query[:, :, begin:end],
            key[:, :, :end],
            value[:, :, :end],
            mask[..., begin:end, :end],
            **given,
        )
        outputs.append(output)
    return torch.cat(outputs, dim=1), None


TRIES: dict[str, Callable[[argparse.Namespace], dict[str, Callable[[], Any]]]] = {
    "compiled": compiled,
    "chunked": chunked,
    "masked": masked,
}


def in_turns(runs: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """By round the time of each run but the first divided by the first's."""
    for run in runs.values():
        run()
    first, *others = runs
    ratios: dict[str, list[float]] = {f"{name} ÷ {first}": [] for name in others}
    for number in range(rounds):
        spent = {}
        for name in random.Random(number).sample([first, *others], len(runs)):
            started = time.process_time()
            runs[name]()
            spent[name] = time.process_time() - started
        for name in others:
            ratios[f"{name} ÷ {first}"].append(spent[name] / spent[first])
    return ratios


def _layout(options: argparse.Namespace) -> Layout:
    shape = SHAPES[options.shape]
    assert shape.target is not None, "a text is written"
    return _random_layout(shape.rows, shape.source.mean, shape.target.mean)


def _random_layout(rows: int, source: int, target: int) -> Layout:
    dice = random.Random(0)

    def ids(count: int) -> list[list[int]]:
        return [[dice.randrange(3, 90) for _ in range(count)] for _ in range(rows)]

    return Layout.of(ids(source), ids(target))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--shape", choices=("gpt2", "tiny-gpt2"), default="gpt2")
    parser.add_argument("--backend", default="inductor", help="of torch.compile")
    parser.add_argument("--only", choices=tuple(TRIES), nargs="+", help="default: all")
    parser.add_argument("--rounds", type=int, default=7, help="default %(default)s")
    parser.add_argument("--threads", type=int, help="of the CPU; default: torch's")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
