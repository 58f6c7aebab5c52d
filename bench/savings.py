"""A training step that leaves something out, beside one that leaves out all but that.

    python bench/savings.py --shape gpt2 --method "prefix of 512" --saving copies --threads 1
    python bench/savings.py --shape llama-0.5b --method "prefix, table" --saving outputs --threads 1

Shapes and methods are those of `steps.py`. Figures are time and peak (the most that a step holds
beyond the backbone) with the saving divided by those without: the median of rounds of one step, in
which both take the same examples in another order each time.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence

import torch

import training
from foreword.backbone import SAVINGS, without
from foreword.backbone.memory import Alive, resident
from foreword.tuned.compose import compose
from shapes import SHAPES, make_model
from steps import check_units, methods_of, our_step, readout_of

STEPS = 4


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--shape", choices=tuple(SHAPES), default="gpt2")
    parser.add_argument("--method", default="prefix, table", help="a row of steps.py")
    parser.add_argument("--saving", choices=SAVINGS, required=True)
    parser.add_argument("--rounds", type=int, default=5, help="default %(default)s")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--weights", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, help="of the CPU; default: torch's")
    parser.add_argument("--clock", choices=tuple(training.CLOCKS), default="wall")
    options = parser.parse_args(arguments)
    check_units(options)
    if options.threads:
        torch.set_num_threads(options.threads)
    shape, clock = SHAPES[options.shape], training.CLOCKS[options.clock]
    weights = make_model(options.shape).to(options.device, getattr(torch, options.weights))
    pairs = shape.pairs(STEPS * shape.rows, weights.config.vocab_size, 0)
    batches = [list(range(at, at + shape.rows)) for at in range(0, len(pairs), shape.rows)]
    backbone = training.as_backbone(weights)
    method = methods_of(shape, weights, 10)[options.method]
    step = our_step(compose(backbone, method, readout_of(shape, backbone)), pairs, shape, options)
    ways: dict[bool, tuple[str, ...]] = {True: (), False: (options.saving,)}
    peaks = {}
    for saves, off in ways.items():
        with without(backbone.model, off):
            step(batches[0])
            with Alive(resident(weights)) as alive:
                step(batches[0])
        peaks[saves] = alive.peak
    ratios = []
    for number in range(options.rounds):
        seconds = {}
        for saves in (True, False) if number % 2 else (False, True):
            with without(backbone.model, ways[saves]):
                begun = clock()
                step(batches[number % STEPS])
                seconds[saves] = clock() - begun
        ratios.append(seconds[True] / seconds[False])
    spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    print(
        f"{options.shape}, {options.method}, {options.saving}: time {spread}, "
        f"peak {peaks[True] / peaks[False]:.2f}"
    )


if __name__ == "__main__":
    main()
