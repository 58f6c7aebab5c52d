"""What the fused GELU brings: a training step of a prefix on foreword/mini, both ways, in turns.

    python bench/activation.py

Prints the ratio of the medians of processor time, fused over transformers' own.
"""

from __future__ import annotations

import statistics
import time

from torch import nn
from transformers.activations import NewGELUActivation

from fieldguide import prefix_and_batch
from foreword import load_backbone

ROUNDS = 40


def put(model: nn.Module, activation: type[nn.Module], **options: str) -> None:
    """Make every GELU of a model an `activation`."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, NewGELUActivation | nn.GELU):
                setattr(module, name, activation(**options))


def main() -> None:
    """Time both, alternating, and print the ratio."""
    backbone = load_backbone("foreword/mini")
    model, layout = prefix_and_batch(backbone)

    def step() -> float:
        start = time.process_time()
        model(layout).sum().backward()
        return time.process_time() - start

    spent: dict[str, list[float]] = {"fused": [], "own": []}
    for _ in range(ROUNDS):
        put(backbone.model, nn.GELU, approximate="tanh")
        spent["fused"].append(step())
        put(backbone.model, NewGELUActivation)
        spent["own"].append(step())
    ratio = statistics.median(spent["fused"]) / statistics.median(spent["own"])
    print(f"fused / transformers' own: {ratio:.2f}")


if __name__ == "__main__":
    main()
