"""P-Tuning's reparameterizations (Liu et al. 2021, "GPT Understands, Too", section 3.2).

A small table goes through a bidirectional LSTM and a two-layer MLP, or through a three-layer MLP.
Modules are named and shaped as PEFT's `PromptEncoder` has them, so its state dicts load here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from foreword.axes.reparam.base import Rows, fit_by_adam


def lstm_head(d: int, hidden: int, layers: int, dropout: float) -> nn.LSTM:
    """`[B, P, d]` to `[B, P, 2 · hidden]`: each virtual token sees those before and after it."""
    return nn.LSTM(
        d, hidden, num_layers=layers, dropout=dropout, bidirectional=True, batch_first=True
    )


def lstm_mlp_head(hidden: int, width: int) -> nn.Sequential:
    """What follows the LSTM: `[..., 2 · hidden]` to `[..., width]`."""
    return nn.Sequential(nn.Linear(2 * hidden, 2 * hidden), nn.ReLU(), nn.Linear(2 * hidden, width))


def relu_mlp_head(d: int, hidden: int, width: int) -> nn.Sequential:
    """Three linear layers: `[..., d]` to `[..., width]`."""
    return nn.Sequential(
        nn.Linear(d, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, width),
    )


class _Encoder(Rows):
    """A table `[P, d]` and a network that makes `[P, width]` of it."""

    def __init__(self, length: int, d: int, fit_steps: int, fit_learning_rate: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(length, d)
        self.fit_steps = fit_steps
        self.fit_learning_rate = fit_learning_rate

    def fit(self, rows: Tensor) -> float:
        """Train table and network towards `rows` by Adam on the squared error."""
        return fit_by_adam(
            self,
            rows,
            self.parameters(),
            steps=self.fit_steps,
            learning_rate=self.fit_learning_rate,
        )


class LSTM(_Encoder):
    """A table `[P, d]` through a bidirectional LSTM, then an MLP with ReLU.

    Dropout acts in training steps alone: whatever runs without gradients (measuring, decoding,
    folding) sees the prompt as it will be stored, in whichever mode the module is.

    Args:
        length: P.
        width: numbers per virtual token, as the injection says.
        d: width of the small table.
        hidden: width of the LSTM's state in each direction; the authors' code takes d / 2, PEFT d.
        layers: layers of the LSTM.
        dropout: between the LSTM's layers.
        fit_steps, fit_learning_rate: how `fit` trains.
    """

    def __init__(
        self,
        length: int,
        width: int,
        d: int,
        hidden: int,
        *,
        layers: int = 2,
        dropout: float = 0.0,
        fit_steps: int = 500,
        fit_learning_rate: float = 1e-3,
    ) -> None:
        super().__init__(length, d, fit_steps, fit_learning_rate)
        self.lstm_head = lstm_head(d, hidden, layers, dropout)
        self.mlp_head = lstm_mlp_head(hidden, width)

    def forward(self) -> Tensor:
        """The virtual tokens: `[P, width]`."""
        self.lstm_head.train(self.training and torch.is_grad_enabled())
        states, _ = self.lstm_head(self.embedding.weight[None])
        rows: Tensor = self.mlp_head(states)[0]
        return rows


class ReluMLP(_Encoder):
    """A table `[P, d]` through three linear layers with ReLU between.

    Args:
        length: P.
        width: numbers per virtual token, as the injection says.
        d: width of the small table.
        hidden: width of the two hidden layers; PEFT takes d.
        fit_steps, fit_learning_rate: how `fit` trains.
    """

    def __init__(
        self,
        length: int,
        width: int,
        d: int,
        hidden: int,
        *,
        fit_steps: int = 500,
        fit_learning_rate: float = 1e-3,
    ) -> None:
        super().__init__(length, d, fit_steps, fit_learning_rate)
        self.mlp_head = relu_mlp_head(d, hidden, width)

    def forward(self) -> Tensor:
        """The virtual tokens: `[P, width]`."""
        rows: Tensor = self.mlp_head(self.embedding.weight)
        return rows
