"""What tests of deltas share: a point on the axes for each, and weights that say something."""

from __future__ import annotations

import torch

from foreword.axes.deltas import Delta
from foreword.backbone import Backbone, Call
from foreword.backbone.layout import Layout
from foreword.methods import METHODS, MethodOptions
from foreword.tuned import TunedModel

MOVING = ("fine-tuning", "fine-tuning-top", "bitfit", "adapter", "lora")


def method(name: str, **options: object) -> MethodOptions:
    """A method's options, checked as those of a recipe are."""
    return METHODS[name].model_validate({"name": name, **options})


def louder(delta: Delta, *, seed: int = 1) -> Delta:
    """The same, far from where it started."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in delta.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(0.1 * noise.to(parameter.dtype))
    return delta


def texts(backbone: Backbone, *, virtual: int = 0) -> Layout:
    """Two rows of different lengths, with answers where the backbone writes."""
    if backbone.geometry.kind == "encoder-decoder":
        return Layout.of(
            [list(backbone.begin or ())] * 2,
            [[5, 6, 7], [8, 9]],
            source=Layout.of([[3, 4, 5, 6], [7, 8]]),
        )
    first = backbone.geometry.first_position
    return Layout.of([[3, 4, 5, 6, 7], [8, 9, 10]], virtual=virtual, first_position=first)


def logits(model: TunedModel, layout: Layout) -> torch.Tensor:
    """At every real position: `[N, vocabulary]`, or `[N, d]` of a model without such a head."""
    backbone = model.backbone
    if backbone.model.get_output_embeddings() is None:
        return backbone.hidden(Call(layout, model.prompt()))[layout.attention_mask]
    return backbone.logits(Call(layout, model.prompt()))[layout.attention_mask]
