"""Which layers of a backbone PEFT's updates are for."""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor, nn

from foreword.backbone import LINEAR, Backbone
from foreword.compat.adapter import BASE, WEIGHTS, Adapter
from foreword.compat.adapters.low_rank_fields import MERGE, UNTIED
from foreword.errors import ArtifactError, argument


def shorter(named: str | tuple[str, ...] | None, layers: Collection[str]) -> list[tuple[str, ...]]:
    """What may name the same layers in fewer words: their ends, or the names in a configuration."""
    ends = tuple(sorted({layer.rpartition(".")[2] for layer in layers}))
    return [ends, *([tuple(sorted(named))] if isinstance(named, tuple) and named else [])]


def layer_of(
    adapter: Adapter,
    backbone: Backbone,
    name: str,
    pair: tuple[Tensor, Tensor],
    movable: Collection[str],
) -> str:
    """What a layer of PEFT's model is called in the backbone.

    transformers' classes of a family put the same body under the same name, or are it.

    Raises:
        ArtifactError: there is none, it is none that LoRA updates here, or has another shape.
    """
    model, where = backbone.model, f"{adapter.folder / WEIGHTS}: {BASE}{name}"
    body = next(n for n, module in model.named_modules() if module is model.base_model)
    inside = name.removeprefix(f"{model.base_model_prefix}.")
    for here in (f"{body}.{inside}".lstrip("."), name):
        try:
            layer = model.get_submodule(here)
        except AttributeError:
            continue
        if isinstance(layer, LINEAR):
            break
    else:
        raise ArtifactError(
            f"{where} is no linear layer of '{backbone.name}' ({model.config.model_type}); name "
            f"the right backbone with {argument('--backbone')}"
        )
    if layer is model.get_output_embeddings():
        raise ArtifactError(f"{where} is the output layer, which LoRA here leaves alone; {UNTIED}")
    if f"{here}.weight" not in movable:
        raise ArtifactError(
            f"{where} is a layer that no answer here depends on, which LoRA here leaves alone; "
            f"{MERGE}"
        )
    shape = (
        (layer.out_features, layer.in_features)
        if isinstance(layer, nn.Linear)
        else (layer.nf, layer.nx)
    )
    a, b = pair
    if (b.shape[0], a.shape[1]) != shape:
        raise ArtifactError(
            f"{where} has an update of {b.shape[0]} outputs and {a.shape[1]} inputs, but in "
            f"'{backbone.name}' the layer has {shape[0]} and {shape[1]}; name the right backbone "
            f"with {argument('--backbone')}"
        )
    return here
