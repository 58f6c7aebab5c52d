"""A start that is met exactly, whatever makes the virtual tokens: a fixed table on top.

A network rarely gives chosen virtual tokens. What it leaves is kept in a table that is added to all
that it makes, and that is not trained: `P[i] = made[i] + left[i]`. Folding keeps the sum.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from foreword.axes.parts import Named, Part, VirtualTokens
from foreword.axes.reparam.base import Reparameterization


class Shifted(Reparameterization):
    """What another reparameterization makes, and a fixed table `[P, width]` of each part.

    Args:
        inner: makes what is trained.
        parts: the parts of the prompt.
    """

    def __init__(self, inner: Reparameterization, parts: Sequence[Part]) -> None:
        super().__init__()
        self.inner = inner
        self.parts = tuple(part for part in parts if isinstance(part, VirtualTokens))
        for part in self.parts:
            self.register_buffer(_key(part), torch.zeros(part.length, part.width))

    def forward(self) -> dict[str, Tensor]:
        """The tensors of every part, by name."""
        named: dict[str, Tensor] = self.inner()
        for part in self.parts:
            named = {**named, **part.split(part.join(named) + self.get_buffer(_key(part)))}
        return named

    @property
    def own_answers(self) -> int:
        """Those of the inner one."""
        return self.inner.own_answers

    @torch.no_grad()
    def fit(self, named: Named) -> float:
        """Fit the inner one as well as it can; the tables keep what it leaves, so nothing is."""
        self.inner.fit(named)
        made = self.inner()
        for part in self.parts:
            left = part.join(named) - part.join(made)
            self.get_buffer(_key(part)).copy_(left)
        return 0.0


def _key(part: Part) -> str:
    return f"left/{part.name.replace('.', '/')}"  # torch allows no dots there
