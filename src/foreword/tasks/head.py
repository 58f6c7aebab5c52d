"""What a head is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import nn

from foreword.axes.readout import Head
from foreword.backbone import Backbone, stored_pooler
from foreword.errors import UserError
from foreword.recipe import HeadSpec

Pooling = Literal["auto", "first", "last", "mean", "prompt"]
AnyHead = TypeVar("AnyHead", bound=Head)


@dataclass(frozen=True)
class HeadOptions:
    """What a head is made of.

    Attributes:
        dropout: on the states it reads.
        hidden: width of a layer with tanh before the last one; none where it is None.
        pooling: which state answers for a text: the first (an encoder's), the last (a decoder's),
            the mean of all, or that of the first virtual token in an encoder's input (PEFT's).
        pooler: whether the layer before the last one is the backbone's own pooler, and moves.
    """

    dropout: float = 0.1
    hidden: int | None = None
    pooling: Pooling = "auto"
    pooler: Literal["none", "frozen", "trained"] = "none"

    @classmethod
    def of(cls, spec: HeadSpec) -> HeadOptions:
        """As a recipe or an artifact states it."""
        return cls(spec.dropout, spec.hidden, spec.pooling, spec.pooler)

    def made(self, kind: type[AnyHead], backbone: Backbone, outputs: int) -> AnyHead:
        """A new head for a backbone.

        Raises:
            BackboneError: the backbone is an encoder-decoder.
        """
        backbone.check_takes_head()
        if self.pooler == "none":
            return kind(backbone.hidden_width, outputs, dropout=self.dropout, hidden=self.hidden)
        width = backbone.hidden_width
        head = kind(width, outputs, dropout=self.dropout, hidden=width, drops_hidden=True)
        head.layers[0].requires_grad_(self.pooler == "trained")
        return head

    def start(self, head: Head, backbone: Backbone) -> None:
        """Give a new head the backbone's pooler, where it has one.

        Raises:
            UserError: the backbone has none.
        """
        if self.pooler == "none":
            return
        pooler = stored_pooler(backbone) if backbone.geometry.kind == "encoder" else None
        width = backbone.hidden_width
        if pooler is None or pooler[0].shape != (width, width):
            raise UserError(
                f"task.head.pooler: '{backbone.name}' ({backbone.model.config.model_type}) holds "
                "no pooler, or one of another width; leave `pooler` out, or give `hidden` for a "
                "new layer"
            )
        first = head.layers[0]
        assert isinstance(first, nn.Linear)
        with torch.no_grad():
            first.weight.copy_(pooler[0])
            first.bias.copy_(pooler[1])
