"""Heads as a recipe or an artifact states them (`foreword.recipe.HeadSpec`), on a backbone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import nn

from foreword.axes.readout import Head
from foreword.backbone import Backbone, stored_pooler
from foreword.errors import UserError
from foreword.recipe import HeadSpec

AnyHead = TypeVar("AnyHead", bound=Head)


def new_head(spec: HeadSpec, kind: type[AnyHead], backbone: Backbone, outputs: int) -> AnyHead:
    """A new head for a backbone.

    Raises:
        BackboneError: the backbone is an encoder-decoder.
    """
    backbone.check_takes_head()
    width = backbone.hidden_width
    if spec.pooler == "none":
        return kind(width, outputs, dropout=spec.dropout, hidden=spec.hidden, bias=spec.bias)
    head = kind(
        width, outputs, dropout=spec.dropout, hidden=width, drops_hidden=True, bias=spec.bias
    )
    head.layers[0].requires_grad_(spec.pooler == "trained")
    return head


def marks_of(spec: HeadSpec, backbone: Backbone, ids: Sequence[int]) -> tuple[int, ...]:
    """Which tokens of a row a head for the whole of it reads, as `Pair.marks`."""
    if spec.pooling == "mean":
        return tuple(range(len(ids)))
    if spec.pooling == "prompt":  # in a slot of the text, or in front of it
        virtual = backbone.tokens.virtual
        return (next((at for at, token in enumerate(ids) if token >= virtual), -1),)
    encodes = backbone.geometry.kind == "encoder"
    first = spec.pooling == "first" or (spec.pooling == "auto" and encodes)
    return (0,) if first else (len(ids) - 1,)


def start_head(spec: HeadSpec, head: Head, backbone: Backbone) -> None:
    """Give a new head the backbone's pooler, where it is to have one.

    Raises:
        UserError: the backbone has none.
    """
    if spec.pooler == "none":
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
