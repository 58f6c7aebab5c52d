"""Every part of a prompt made by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from foreword.axes.parts import FreePart, Named, Part, VirtualTokens
from foreword.axes.reparam.base import Reparameterization, Rows
from foreword.axes.reparam.table import Table


class ByPart(Reparameterization):
    """A maker of rows for each part with virtual tokens, a parameter for each other one.

    Args:
        parts: what is made.
        rows: from a part to what makes its virtual tokens, `[P, part.width]`.
    """

    def __init__(self, parts: Sequence[Part], rows: Callable[[VirtualTokens], Rows]) -> None:
        super().__init__()
        self.parts = tuple(parts)
        self.makers = nn.ModuleDict()
        self.free = nn.ParameterDict()
        for part in self.parts:
            if isinstance(part, VirtualTokens):
                self.makers[_key(part)] = rows(part)
            elif isinstance(part, FreePart):
                drawn = torch.randn(part.shape) * part.std if part.std else 0.0
                self.free[_key(part)] = nn.Parameter(torch.full(part.shape, part.start) + drawn)
            else:
                raise TypeError(f"{part!r} is neither virtual tokens nor one tensor")

    @classmethod
    def fixed(cls, parts: Sequence[Part], named: Named) -> ByPart:
        """Given tensors, kept as they are: what a trained prompt is folded to."""

        def table(part: VirtualTokens) -> Table:
            rows = part.join(named)
            made = Table(*rows.shape).to(torch.promote_types(rows.dtype, torch.float32))
            made.fit(rows)
            return made

        kept = cls(parts, table)
        for part in kept.parts:
            if isinstance(part, FreePart):
                kept.free[_key(part)] = nn.Parameter(named[part.name].detach().clone())
        return kept.requires_grad_(False)

    def forward(self) -> dict[str, Tensor]:
        """The tensors of every part, by name."""
        named: dict[str, Tensor] = {}
        for part in self.parts:
            if isinstance(part, VirtualTokens):
                named |= part.split(self.makers[_key(part)]())
            else:
                named[part.name] = self.free[_key(part)]
        return named

    def fit(self, named: Named) -> float:
        """Fit each to its own; the mean squared error that is left over all virtual tokens."""
        left, width = 0.0, 0
        for part in self.parts:
            if isinstance(part, VirtualTokens):
                maker = self.makers[_key(part)]
                assert isinstance(maker, Rows)
                left += maker.fit(part.join(named)) * part.width
                width += part.width
            elif part.name in named:
                with torch.no_grad():
                    self.free[_key(part)].copy_(named[part.name])
        return left / width if width else 0.0


def _key(part: Part) -> str:
    return part.name.replace(".", "/")  # torch allows no dots there
