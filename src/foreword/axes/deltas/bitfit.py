"""The biases move (Ben Zaken et al. 2022, section 3)."""

from __future__ import annotations

from typing import ClassVar

from foreword.axes.deltas.base import Weights
from foreword.backbone import Backbone
from foreword.errors import UserError


class BitFit(Weights):
    """Every bias that an answer depends on: of linear layers, and of layer norms.

    Args:
        backbone: what is copied, the biases with new memory.
        head: whether a head reads its last states.

    Raises:
        UserError: the backbone has no bias.
    """

    kind: ClassVar[str] = "bitfit"

    def __init__(self, backbone: Backbone, *, head: bool = False) -> None:
        biases = [name for name in backbone.movable(head=head) if is_bias(name)]
        if not biases:
            raise UserError(
                f"method: '{backbone.name}' ({backbone.model.config.model_type}) has no biases, so "
                "BitFit has nothing to move; choose lora or adapter"
            )
        super().__init__(backbone, biases)


def is_bias(name: str) -> bool:
    """Whether a parameter's name is that of a bias."""
    last = name.rpartition(".")[2]
    return last == "bias" or last.endswith("_bias")
