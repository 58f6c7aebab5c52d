"""No reparameterization: the virtual tokens are themselves the parameters."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from foreword.axes.reparam.base import Rows


class Table(Rows):
    """A plain `[P, width]` parameter.

    Args:
        length: P.
        width: numbers per virtual token, as the injection says.
        std: standard deviation of the random start.
    """

    def __init__(self, length: int, width: int, std: float = 0.02) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.randn(length, width) * std)

    def forward(self) -> Tensor:
        """The virtual tokens: `[P, width]`."""
        return self.rows

    @torch.no_grad()
    def fit(self, rows: Tensor) -> float:
        """Take `rows` as they are; nothing is left."""
        self.rows.copy_(rows)
        return 0.0
