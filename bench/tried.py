"""What was tried on a CPU and is not built in: a compiled backbone, and a head without its logits.

    python bench/tried.py --threads 1

- compiled: `torch.compile` of GPT-2's layers for one shape of batch, forward and backward, against
  the same without it (`bench/steps.py`'s floor);
- chunked: torch's `linear_cross_entropy` (from torch 2.13) on chunks of 64 positions, against the
  head's logits and their cross entropy, both with the gradient at the states.

Each figure is a ratio of processor time of one run: the median over rounds in which both take
turns, and the smallest and largest. Compiling itself is not in them.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from foreword.backbone.layout import Layout
from foreword.backbone.modules.activations import fuse_activations
from shapes import SHAPES, make_model
from steps import floor_loss

CHUNK = 64


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    options = _options(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    _say("compiled ÷ plain", in_turns(compiled(options), options.rounds))
    if hasattr(nn.functional, "linear_cross_entropy"):
        _say("chunked ÷ whole", in_turns(chunked(options), options.rounds))


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


def in_turns(runs: Mapping[str, Callable[[], Any]], rounds: int) -> list[float]:
    """By round the second's time divided by the first's."""
    for run in runs.values():
        run()
    first, second = runs
    ratios = []
    for number in range(rounds):
        spent = {}
        for name in random.Random(number).sample([first, second], 2):
            started = time.process_time()
            runs[name]()
            spent[name] = time.process_time() - started
        ratios.append(spent[second] / spent[first])
    return ratios


def _layout(options: argparse.Namespace) -> Layout:
    shape, dice = SHAPES[options.shape], random.Random(0)
    assert shape.target is not None, "a text is written"
    sizes = (shape.source.mean, shape.target.mean)
    rows = [[[dice.randrange(3, 90) for _ in range(n)] for n in sizes] for _ in range(shape.rows)]
    return Layout.of([source for source, _ in rows], [target for _, target in rows])


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--shape", choices=("gpt2", "tiny-gpt2"), default="gpt2")
    parser.add_argument("--backend", default="inductor", help="of torch.compile")
    parser.add_argument("--rounds", type=int, default=7, help="default %(default)s")
    parser.add_argument("--threads", type=int, help="of the CPU; default: torch's")
    return parser.parse_args(arguments)


def _say(what: str, ratios: list[float]) -> None:
    print(f"{what}: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
