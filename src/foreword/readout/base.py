"""What every readout can do."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor, nn

from foreword.backbone import Backbone, Prompt
from foreword.layout import Layout


class Readout(nn.Module):
    """Reads the answer off a backbone; what it trains for that is its own."""

    @abstractmethod
    def loss(self, backbone: Backbone, layout: Layout, prompt: Prompt | None) -> Tensor:
        """Negative log-likelihood in nats of everything that a batch should answer: `[N]`."""


class Told(Readout):
    """A readout that says something of each row, instead of writing."""

    @abstractmethod
    def read(self, backbone: Backbone, layout: Layout, prompt: Prompt | None) -> list[Tensor]:
        """What each row of a batch says, on the CPU."""
