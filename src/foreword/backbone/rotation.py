"""Keys moved to later positions, where a model tells positions by rotating its keys.

Under rotary embeddings (Su et al. 2021, section 3.2) a score depends on the distance of two
positions alone, so that moving a text by some positions turns each of its keys by one matrix, the
same for all tokens. The matrix of each layer is measured on the model itself, whichever variant of
rotary embeddings it has; a model whose keys are not turned so is refused.
"""

from __future__ import annotations

import torch
from torch import Tensor

from foreword.backbone.layout import Layout
from foreword.backbone.model import Backbone
from foreword.errors import BackboneError

TOLERANCE = 1e-4
"""How far a measured matrix may be from one that turns keys, relative to its entries."""


@torch.no_grad()
def turned(backbone: Backbone, keys: Tensor, by: int) -> Tensor:
    """Keys as the same virtual tokens would have them so many positions later.

    Args:
        backbone: a decoder; its weights in float64 make the matrices exact.
        keys: `[layers, P, kv_heads, head_dim]`, all layers of the decoder.
        by: how many positions.

    Returns:
        `[layers, P, kv_heads, head_dim]`, in the type that was given.

    Raises:
        BackboneError: the model does not tell positions by turning its keys.
    """
    wide = [
        side.double() @ matrix.to(side.device)
        for side, matrix in zip(keys, _matrices(backbone, by), strict=True)
    ]
    return torch.stack(wide).to(keys.dtype)


def _matrices(backbone: Backbone, by: int) -> list[Tensor]:
    """For each layer what turns a key by so many positions, from the right: `[head_dim, head_dim]`.

    They are measured on rows of one token, which sees itself alone, so that its states are the same
    wherever it stands.
    """
    if not backbone.geometry.takes_positions:
        _refuse(backbone, "it is not told positions")
    size = max(one.key_dim for one in backbone.geometry.main.heads)
    many = min(backbone.geometry.vocabulary, 4 * size)
    ids = torch.linspace(0, backbone.geometry.vocabulary - 1, many).long().tolist()
    here, there = (
        backbone.read(Layout.of([[i] for i in ids], first_position=first).to(backbone.device))
        for first in (0, by)
    )
    matrices = []
    for layer, ((keys, values), (moved, moved_values)) in enumerate(zip(here, there, strict=True)):
        before, after = (side.flatten(0, 2).double().cpu() for side in (keys, moved))
        matrix = torch.linalg.lstsq(before, after, driver="gelsd").solution
        fits = _close(before @ matrix, after) and _close(moved_values, values)
        turns = _close(matrix @ matrix.T, torch.eye(len(matrix), dtype=torch.float64))
        if not fits or not turns:
            _refuse(backbone, f"layer {layer} has other keys there, not the same ones turned")
        matrices.append(matrix)
    return matrices


def _close(measured: Tensor, expected: Tensor) -> bool:
    scale = max(1e-30, expected.abs().max().item())
    return (measured - expected).abs().max().item() <= TOLERANCE * scale


def _refuse(backbone: Backbone, reason: str) -> None:
    raise BackboneError(
        f"backbone '{backbone.name}' ({backbone.model.config.model_type}): its keys cannot be "
        f"moved to later positions: {reason}"
    )
