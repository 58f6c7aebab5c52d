"""Every weight moves: fine-tuning, what all other methods are compared with."""

from __future__ import annotations

from typing import ClassVar

from foreword.axes.deltas.base import Weights
from foreword.backbone import Backbone


class Full(Weights):
    """All weights of a copy of the backbone that an answer depends on.

    Args:
        backbone: what is copied.
        head: whether a head reads its last states.
    """

    kind: ClassVar[str] = "full"

    def __init__(self, backbone: Backbone, *, head: bool = False) -> None:
        super().__init__(backbone, backbone.movable(head=head))
