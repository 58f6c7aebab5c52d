"""A product of a few rows and a weight that is laid out for it once, beside one that is not.

    python bench/packing.py --threads 1

`foreword.backbone.packed` beside the layers themselves, of a width of 512 and of GPT-2's 768, many
of them in turn so that no weight stays in a cache of the processor: the time of the packed product
divided by the other's, medians of processor time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from foreword.backbone.decoding.packing import pack_layer

ROWS = (1, 2, 4, 8, 16, 32, 64, 256)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9, help="default %(default)s")
    parser.add_argument("--layers", type=int, default=16, help="default %(default)s")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    print("| layer | " + " | ".join(f"{rows} rows" for rows in ROWS) + " |")
    print("|---|" + "--:|" * len(ROWS))
    for width in (512, 768):
        for kind in (nn.Linear, Conv1D):
            sizes = (width, 4 * width) if kind is nn.Linear else (4 * width, width)
            own = [kind(*sizes).requires_grad_(False) for _ in range(options.layers)]
            other = [kind(*sizes).requires_grad_(False) for _ in range(options.layers)]
            for layer in other:
                pack_layer(layer)
            shown = [f"{_ratio(own, other, width, rows, options.rounds):.2f}" for rows in ROWS]
            print(f"| {kind.__name__}, {width} to {4 * width} | {' | '.join(shown)} |", flush=True)


@torch.no_grad()
def _ratio(
    own: Sequence[nn.Module], other: Sequence[nn.Module], width: int, rows: int, rounds: int
) -> float:
    states, ratios = torch.randn(rows, width), []
    for _ in range(rounds):
        seconds = []
        for layers in (own, other):
            begun = time.process_time()
            for layer in layers:
                layer(states)
            seconds.append(time.process_time() - begun)
        ratios.append(seconds[1] / seconds[0])
    return statistics.median(ratios)


if __name__ == "__main__":
    main()
