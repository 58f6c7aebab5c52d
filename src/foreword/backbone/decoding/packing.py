"""Linear layers of a model on a CPU whose weights lie as oneDNN multiplies a few rows by them.

A step of decoding has one token of each row, and a matrix product of a few rows spends most of its
time on laying out the weights. Here that is done once: a product of 4 to 16 rows takes about half
the time, of 256 rows 0.8 (`python bench/packing.py`). The values agree to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor, nn

from foreword.backbone.model import Backbone
from foreword.backbone.modules.sublayers import LINEAR

SMALLEST = 2**14
"""Numbers of a weight from which on it is worth while."""


def packed_bytes(backbone: Backbone) -> int:
    """What the second layout of the weights takes; 0 where there is none to gain: on other devices
    than CPUs, in other types than float32, and of quantised layers."""
    if not possible():
        return 0
    return sum(_weight(module).nbytes for module in _layers(backbone.model))


def packed(backbone: Backbone) -> Backbone:
    """The same backbone in modules of its own, around the same weights and a second layout of
    them. It computes no gradient by that; where one is asked for, the weights themselves serve."""
    copy = replace(backbone, model=backbone.copied().model)
    for module in _layers(copy.model):
        pack_layer(module)
    return copy


@cache
def possible() -> bool:
    """Whether this torch has the products, and they are right."""
    if not torch._C._has_mkldnn:
        return False
    generator = torch.Generator().manual_seed(0)
    layer = nn.Linear(24, 40)
    rows = torch.randn(3, 24, generator=generator)
    with torch.no_grad():
        expected = layer(rows)
        try:
            pack_layer(layer)
            return torch.allclose(layer(rows), expected, atol=1e-5)
        except (AttributeError, RuntimeError, TypeError):
            return False


def _layers(model: nn.Module) -> list[nn.Module]:
    """Layers of exactly these kinds: a quantised or adapted one is something else."""
    return [
        module
        for module in model.modules()
        if type(module) in LINEAR
        and _weight(module).dtype == torch.float32
        and _weight(module).device.type == "cpu"
        and _weight(module).numel() >= SMALLEST
    ]


def rows_of_a_product(rows: int) -> int:
    """How many rows a product has that is made for some, with idle ones: eight numbers between one
    power of two and the next. oneDNN keeps code for each number of rows that it has seen, half a
    megabyte and less."""
    step = 1 << max(0, rows.bit_length() - 4)
    return -(-rows // step) * step


def _weight(module: nn.Module) -> Tensor:
    """The weight of a linear layer."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight


def pack_layer(module: nn.Module) -> None:
    """Let a layer multiply by a second layout of its weight."""
    weight, bias, own = _weight(module).detach(), module.bias, module.forward
    laid = weight if isinstance(module, nn.Linear) else weight.T.contiguous()
    reordered = torch.ops.mkldnn._reorder_linear_weight(laid, None)
    product: Callable[..., Tensor] = torch.ops.mkldnn._linear_pointwise

    def forward(states: Tensor) -> Tensor:
        rows = states.numel() // states.shape[-1]
        if rows < 2 or (torch.is_grad_enabled() and states.requires_grad):
            result: Tensor = own(states)
            return result
        more = rows_of_a_product(rows) - rows
        if not more:
            return product(states, reordered, bias, "none", [], "")
        filled = nn.functional.pad(states.reshape(rows, -1), (0, 0, 0, more))
        several = product(filled, reordered, bias, "none", [], "")[:rows]
        return several.view(*states.shape[:-1], -1)

    module.forward = forward
