"""What every reparameterization can do, and what makes the rows of one part."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from foreword.axes.parts import Named


class Reparameterization(nn.Module):
    """Makes a prompt's named tensors from its parameters, once per step and not once per row."""

    @abstractmethod
    def forward(self) -> dict[str, Tensor]:
        """The tensors that the injection asked for, by name."""

    @property
    def own_answers(self) -> int:
        """How many tokens the virtual tokens themselves are trained to predict, for each row."""
        return 0

    @abstractmethod
    def fit(self, named: Named) -> float:
        """Set the parameters so that `forward` gives these tensors, as well as it can.

        Tensors that are not virtual tokens may be left out; they then stay as they are.

        Returns:
            The mean squared error that is left, over the virtual tokens.
        """


class Rows(nn.Module):
    """Makes the P virtual tokens of one part."""

    @abstractmethod
    def forward(self) -> Tensor:
        """The virtual tokens: `[P, width]`."""

    @abstractmethod
    def fit(self, rows: Tensor) -> float:
        """Set the parameters so that `forward` gives `rows` `[P, width]`, as well as it can.

        Returns:
            The mean squared error that is left.
        """


def fit_by_adam(
    maker: Rows,
    rows: Tensor,
    parameters: Iterable[nn.Parameter],
    *,
    steps: int,
    learning_rate: float,
) -> float:
    """Train some of a maker's parameters towards `rows` `[P, width]`.

    Adam on the squared error, as the authors of Prefix-Tuning do it (Li & Liang 2021, 7.4); no
    gradient is left behind.

    Returns:
        The mean squared error that is left.
    """
    rows = rows.detach()
    optimizer = torch.optim.Adam(parameters, lr=learning_rate)
    with torch.enable_grad():
        for _ in range(steps):
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(maker(), rows)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    with torch.no_grad():
        maker.zero_grad(set_to_none=True)
        return nn.functional.mse_loss(maker(), rows).item()
