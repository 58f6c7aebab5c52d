"""Residual prompt tuning's reparameterization (Razdaibiedina et al. 2023, section 3).

`P[i] = P'[i] + LayerNorm(MLP(P'[i]))`: a shallow network with a skip connection around it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from foreword.axes.reparam.base import Rows


class Residual(Rows):
    """A table `[P, width]`, to which a network of each of its rows is added.

    The network is `Linear(width, bottleneck)`, ReLU, `Linear(bottleneck, width)`, and a layer norm.
    Dropout acts in training steps alone: whatever runs without gradients (measuring, decoding,
    folding) sees the prompt as it will be stored.

    Args:
        length: P.
        width: numbers per virtual token, as the injection says.
        bottleneck: width of the hidden layer.
        shared: one network for all virtual tokens, or one for each.
        layer_norm: whether a layer norm follows the second linear layer.
        dropout: between the second linear layer and the layer norm.
    """

    def __init__(
        self,
        length: int,
        width: int,
        bottleneck: int,
        *,
        shared: bool = True,
        layer_norm: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(length, width) * 0.02)
        self.networks = nn.ModuleList(
            nn.Sequential(
                nn.Linear(width, bottleneck),
                nn.ReLU(),
                nn.Linear(bottleneck, width),
                nn.Dropout(dropout),
                nn.LayerNorm(width) if layer_norm else nn.Identity(),
            )
            for _ in range(1 if shared else length)
        )

    def forward(self) -> Tensor:
        """The virtual tokens: `[P, width]`."""
        self.networks.train(self.training and torch.is_grad_enabled())
        shares = self.table.chunk(len(self.networks))
        made = [network(share) for network, share in zip(self.networks, shares, strict=True)]
        return self.table + torch.cat(made)

    @torch.no_grad()
    def fit(self, rows: Tensor) -> float:
        """Take `rows` as the table, as the paper starts; what the networks add is left."""
        self.table.copy_(rows)
        return nn.functional.mse_loss(self(), rows).item()
