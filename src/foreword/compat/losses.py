"""What is lost where an artifact's weights become a plain model's, in figures."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from foreword.artifacts.card import quantised_as
from foreword.artifacts.manifest import Manifest
from foreword.backbone import Backbone, load_backbone
from foreword.backbone.modules import whole
from foreword.backbone.weights.quantization import is_stored
from foreword.backbone.weights.quantization import whole as whole_weight
from foreword.errors import BackboneError, argument
from foreword.methods.axes import LowRank


def of(
    manifest: Manifest, origin: Backbone, weights: Mapping[str, Tensor], device: str
) -> list[str]:
    """Each loss in a line: by quantisation, by another one than was trained with, by rounding.

    Args:
        manifest: the artifact's.
        origin: its backbone.
        weights: those that are changed, before they are stored.
        device: where the checkpoint is loaded once more.
    """
    lines = []
    if origin.quantization is not None:
        lines.append(_quantised(origin, device))
    if (origin.quantization or None) != manifest.backbone.quantization:
        lines.append(
            f"what moved was trained on a backbone {quantised_as(manifest.backbone.quantization)}, "
            f"and is put into one {quantised_as(origin.quantization)}: the answers are not quite "
            "the artifact's"
        )
    if isinstance(manifest.method.moves, LowRank):
        lines += _rounded(origin, weights)
    return lines


def _quantised(origin: Backbone, device: str) -> str:
    held = (
        f"the backbone is {quantised_as(origin.quantization)}: the folder holds the weights that "
        f"it computes with, made whole as {origin.dtype}"
    )
    if is_stored(origin.model):
        return f"{held}; the checkpoint is stored quantised, so there are none to compare them with"
    try:
        stored = load_backbone(
            origin.name,
            revision=origin.revision,
            dtype=origin.dtype,  # type: ignore[arg-type]
            device=device,
            local_files_only=True,
        )
    except BackboneError as reason:
        return f"{held}; they could not be compared with the checkpoint's ({reason})"
    by_layer = whole.errors(origin.model, stored.model)
    error = math.sqrt(sum(e for e, _ in by_layer.values()) / sum(w for _, w in by_layer.values()))
    each = {name: math.sqrt(e / w) if w else 0.0 for name, (e, w) in by_layer.items()}
    worst = max(each, key=lambda name: each[name])
    return (
        f"{held}; in {len(each)} quantised layers they differ from the checkpoint's by {error:.2%} "
        f"of the weights' norm, at most by {each[worst]:.2%} ({worst})"
    )


def _rounded(origin: Backbone, weights: Mapping[str, Tensor]) -> list[str]:
    """How much of low-rank updates is rounded away where weights are stored in a shorter type."""
    lost = moved = 0.0
    for name, merged in weights.items():
        layer = origin.model.get_submodule(name.removesuffix(".weight"))
        own = whole_weight(layer).double()
        lost += (merged.to(origin.model.dtype).double() - merged.double()).square().sum().item()
        moved += (merged.double() - own).square().sum().item()
    if not moved or math.sqrt(lost / moved) < 1e-4:
        return []
    kept = argument("--dtype float32", '`dtype="float32"`')
    return [
        f"stored as {origin.dtype}, the changed weights are rounded by "
        f"{math.sqrt(lost / moved):.2%} of the update's norm; {kept} keeps all of it"
    ]
