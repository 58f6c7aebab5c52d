"""The head of an adapter, as a head of ours takes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from foreword.axes.readout import Head
from foreword.backbone import Backbone
from foreword.compat.head_kinds import HeadKind
from foreword.names import ANSWERS
from foreword.recipe import HeadSpec

Layer = tuple[Tensor, Tensor]
"""Weight `[outputs, inputs]` and bias `[outputs]`."""


@dataclass(frozen=True, eq=False)
class AdapterHead:
    """What reads an adapter's answer.

    Attributes:
        kind: what it tells, and how it reads.
        spec: how a head of ours that does the same is made.
        layers: its weights, the last layer's at the end.
        labels: in the order of its outputs; none for a span or a number.
        pooled: whether its first layer is the base model's pooler.
    """

    kind: HeadKind
    spec: HeadSpec
    layers: tuple[Layer, ...]
    labels: tuple[str, ...]
    pooled: bool

    def stated(self, backbone: Backbone, *, may_be_none: bool = False) -> dict[str, Any]:
        """What a task of this head has beside its templates, as fields of `TaskId`.

        Args:
            backbone: what the head stands on.
            may_be_none: whether a question may have no answer.
        """
        context, known = backbone.geometry.context, ANSWERS[self.kind.answer]
        return {
            "answer": self.kind.answer,
            "labels": self.labels,
            "head": self.spec,
            "may_be_none": may_be_none,
            "tells_apart": not self.kind.of_places,
            **({} if known.column is None else {known.column: known.column}),
            "stride": 128 if context is None else min(128, context // 4),
            "metrics": known.metrics,
        }

    def notes(self, backbone: Backbone) -> list[str]:
        """What somebody who trained it should know of an import."""
        if not self.kind.of_places or not backbone.tells_texts_apart:
            return []
        return [
            "PEFT drops token_type_ids: the model is not told which tokens are the context's, nor "
            "is it here"
        ]

    @torch.no_grad()
    def fill(self, head: Head) -> Head:
        """Put the weights into a new head."""
        linear = [layer for layer in head.layers if isinstance(layer, nn.Linear)]
        for layer, (weight, bias) in zip(linear, self.layers, strict=True):
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)
        return head
