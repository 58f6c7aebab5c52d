"""The last layers move (FT-top2 of Li & Liang 2021, section 5.2; Houlsby et al. 2019 vary k)."""

from __future__ import annotations

from typing import ClassVar

from foreword.axes.deltas.base import Weights
from foreword.backbone import Backbone


class Top(Weights):
    """All weights of the last k layers: of the decoder's, where there is an encoder too.

    Args:
        backbone: what is copied, the last layers with new memory.
        layers: k.
    """

    kind: ClassVar[str] = "top"

    def __init__(self, backbone: Backbone, layers: int) -> None:
        backbone.check_movable()
        last = {id(p) for layer in backbone.last_layers(layers) for p in layer.parameters()}
        named = backbone.model.named_parameters()
        super().__init__(backbone, [name for name, p in named if id(p) in last])
