"""What every reparameterization can do."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor, nn


class Reparameterization(nn.Module):
    """Makes the P virtual tokens from its parameters, once per step and not once per row."""

    @abstractmethod
    def forward(self) -> Tensor:
        """The virtual tokens: `[P, width]`."""

    @abstractmethod
    def fit(self, rows: Tensor) -> float:
        """Set the parameters so that `forward` gives `rows` `[P, width]`, as well as it can.

        Returns:
            The mean squared error that is left.
        """
