"""A table of which the first rows are never trained (Eyuboglu et al. 2025, Cartridges: the first
token is what attention rests on where it has nothing to say, and moving it harms training)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from foreword.axes.reparam.base import Rows


class FrozenFirst(Rows):
    """A `[P, width]` table; its first rows are no parameter, so that no gradient reaches them.

    Args:
        length: P.
        width: numbers per virtual token, as the injection says.
        frozen: how many rows stay where they start.
        std: standard deviation of the random start.
    """

    first: Tensor

    def __init__(self, length: int, width: int, frozen: int, std: float = 0.02) -> None:
        super().__init__()
        rows = torch.randn(length, width) * std
        self.register_buffer("first", rows[:frozen].clone())
        self.rows = nn.Parameter(rows[frozen:].clone())

    def forward(self) -> Tensor:
        """The virtual tokens: `[P, width]`."""
        return torch.cat([self.first, self.rows])

    @torch.no_grad()
    def fit(self, rows: Tensor) -> float:
        """Take `rows` as they are; nothing is left."""
        self.first.copy_(rows[: self.first.shape[0]])
        self.rows.copy_(rows[self.first.shape[0] :])
        return 0.0
