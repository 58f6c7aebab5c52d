"""Bottleneck adapters move (Houlsby et al. 2019, section 2.1).

Each stands on what ends a sub-layer, before the residual is added: the projection after the
attention (each of them, where a decoder attends to an encoder too), and the one that ends the
feed-forward part.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from foreword.axes.deltas.base import Moving
from foreword.backbone import Backbone
from foreword.errors import UserError

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": nn.functional.gelu,
    "relu": nn.functional.relu,
    "silu": nn.functional.silu,
    "tanh": torch.tanh,
}


class Bottleneck(nn.Module):
    """x + up(activation(down(x))); at its start up is zero, so that x stays as it is.

    Args:
        width: of x.
        size: of the bottleneck.
        activation: between the two.
    """

    def __init__(self, width: int, size: int, activation: str = "gelu") -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        self.down, self.up = nn.Linear(width, size), nn.Linear(size, width)
        nn.init.trunc_normal_(self.down.weight, std=0.01, a=-0.02, b=0.02)
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, x: Tensor) -> Tensor:
        """`[..., width]`, computed in the adapter's own type and given back in that of `x`."""
        change: Tensor = self.up(self.activation(self.down(x.to(self.down.weight.dtype))))
        return x + change.to(x.dtype)


class Adapter(Moving):
    """One bottleneck for each sub-layer, and the layer norms.

    Args:
        backbone: what is copied; the layer norms with new memory.
        reduction: the width over that of the bottleneck, which is at least 1.
        size: of the bottleneck, instead.
        activation: inside it.
        layer_norms: whether the backbone's layer norms move too, as in the paper.
        head: whether a head reads its last states.

    Raises:
        BackboneError: the sub-layers cannot be told, or the weights cannot be copied.
    """

    kind: ClassVar[str] = "adapter"

    def __init__(
        self,
        backbone: Backbone,
        *,
        reduction: float = 16.0,
        size: int | None = None,
        activation: str = "gelu",
        layer_norms: bool = True,
        head: bool = False,
    ) -> None:
        norms = _norms(backbone, head=head) if layer_norms else []
        backbone.check_movable(norms)
        endings = backbone.endings()
        copied = backbone.copied(norms)
        super().__init__(backbone, copied)
        dtype = torch.promote_types(backbone.model.dtype, torch.float32)
        for ending in endings:
            inner = size or max(1, round(ending.width / reduction))
            adapter = Bottleneck(ending.width, inner, activation).to(backbone.device, dtype)
            copied.model.get_submodule(ending.name).register_forward_hook(_through(adapter))
            self.move(
                (f"{ending.name}.adapter.{name}", p) for name, p in adapter.named_parameters()
            )
        self.move((name, p) for name, p in copied.model.named_parameters() if name in norms)

    def weights(self) -> dict[str, Tensor]:
        """Refuse: a plain model has no place for them."""
        raise UserError(
            "adapters are layers that a plain model does not have, so they cannot be put into its "
            "weights; LoRA can"
        )


def _through(adapter: Bottleneck) -> Any:
    def hook(_: nn.Module, given: Any, output: Tensor) -> Tensor:
        del given
        adapted: Tensor = adapter(output)
        return adapted

    return hook


def _norms(backbone: Backbone, *, head: bool) -> list[str]:
    """The parameters of the modules that are called norms."""
    inside = {
        id(p)
        for module in backbone.model.modules()
        if "norm" in type(module).__name__.lower()
        for p in module.parameters(recurse=False)
    }
    return [name for name, p in backbone.movable(head=head).items() if id(p) in inside]
