"""LoRA in PEFT's format: `adapter_config.json` and one pair of tensors for each updated layer."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from foreword.artifacts.manifest import DELTA, Manifest
from foreword.artifacts.stored import read_parts
from foreword.axes.readout import Head
from foreword.backbone import LINEAR, Backbone
from foreword.compat.adapter import BASE, FACTORS, MERGE, UNTIED, WEIGHTS, Adapter, LowRankAdapter
from foreword.compat.heads import is_pooler
from foreword.compat.peft_types import PeftType, TaskType
from foreword.errors import ArtifactError, UserError, argument
from foreword.methods import LoRA
from foreword.methods.axes import LowRank
from foreword.tuned import TunedModel
from foreword.tuned.compose import compose


@dataclass
class LoraConfig:
    """The fields of PEFT's configuration that say what a trained LoRA computes.

    Attributes:
        r: rank of the updates.
        lora_alpha: they count lora_alpha / r times.
        lora_dropout: on their input, in training.
        target_modules: names of the updated layers.
        fan_in_fan_out: whether those layers keep their weights as `[in, out]`, as GPT-2 does.
    """

    kind: ClassVar[PeftType] = PeftType.LORA

    task_type: TaskType | str | None = None
    peft_type: PeftType | str = PeftType.LORA
    base_model_name_or_path: str | None = None
    revision: str | None = None
    inference_mode: bool = True
    r: int = 8
    lora_alpha: float = 8
    lora_dropout: float = 0.0
    target_modules: list[str] = field(default_factory=list)
    fan_in_fan_out: bool = False
    bias: str = "none"

    def to_dict(self) -> dict[str, Any]:
        """All fields by name."""
        return asdict(self)


def low_rank(
    source: Path, manifest: Manifest, common: Mapping[str, Any]
) -> tuple[dict[str, Tensor], LoraConfig]:
    """An artifact's updates as PEFT names them, and the configuration that goes with them.

    Raises:
        ArtifactError: the artifact is damaged.
    """
    moves = manifest.method.moves
    assert isinstance(moves, LowRank), "only LoRA has low-rank updates"
    tensors = read_parts(source, manifest)[DELTA]
    layers = {
        name.removesuffix(".lora_A.weight").removesuffix(".lora_B.weight") for name in tensors
    }
    if set(tensors) != {f"{n}.{part}.weight" for n in layers for part in ("lora_A", "lora_B")}:
        raise ArtifactError(f"{source / DELTA}: expected lora_A and lora_B of each layer alone")
    config = LoraConfig(
        **common,
        r=moves.rank,
        lora_alpha=moves.alpha,
        lora_dropout=moves.dropout,
        target_modules=sorted(layers),
        fan_in_fan_out=bool(manifest.axes.get("transposed", False)),
    )
    return {BASE + name: tensor for name, tensor in tensors.items()}, config


def updated(adapter: Adapter, backbone: Backbone, readout: Head | None) -> tuple[LoRA, TunedModel]:
    """The backbone with an adapter's updates, and the options that say them.

    Args:
        adapter: what PEFT saved.
        backbone: what it was trained on.
        readout: its head; None where it writes texts.

    Raises:
        ArtifactError: a layer is not there, has another shape, or is none that LoRA updates here.
        BackboneError: its weights cannot be updated.
        UserError: PEFT is not installed.
    """
    config = adapter.config
    assert isinstance(config, LowRankAdapter)
    tensors: dict[str, Tensor] = {}
    layers: set[str] = set()
    movable = backbone.movable(head=readout is not None)
    for name, pair in adapter.updates.items():
        if readout is not None and is_pooler(name):
            continue  # it is in the head already, or read by nothing
        layer = _layer(adapter, backbone, name, pair, movable)
        if layer in layers:
            raise ArtifactError(f"{adapter.folder / WEIGHTS}: updates {layer} twice")
        layers.add(layer)
        tensors |= {f"{layer}.{part}": factor for part, factor in zip(FACTORS, pair, strict=True)}
    if not layers:
        raise ArtifactError(
            f"{adapter.folder / WEIGHTS}: updates the pooler alone, where LoRA here has no layer"
        )
    method = LoRA(
        name="lora",
        rank=adapter.rank,
        alpha=adapter.alpha,
        dropout=config.lora_dropout,
        targets=tuple(sorted(layers)),
    )
    for targets in _shorter(config, layers):
        short = method.model_copy(update={"targets": targets})
        try:
            model = compose(backbone, short, readout)
        except UserError:  # they name what is not here; the full names say what is wrong
            continue
        if set(model.delta.stated()["targets"]) == layers:
            method = short
            break
    else:
        model = compose(backbone, method, readout)
    model.delta.load(tensors)
    return method, model


def _shorter(config: LowRankAdapter, layers: Collection[str]) -> list[tuple[str, ...]]:
    """What may name the same layers in fewer words."""
    ends = tuple(sorted({layer.rpartition(".")[2] for layer in layers}))
    named = config.target_modules
    return [ends, *([tuple(sorted(named))] if isinstance(named, tuple) and named else [])]


def _layer(
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
    shape = layer.weight.shape if isinstance(layer, nn.Linear) else layer.weight.shape[::-1]
    a, b = pair
    if (b.shape[0], a.shape[1]) != tuple(shape):
        raise ArtifactError(
            f"{where} has an update of {b.shape[0]} outputs and {a.shape[1]} inputs, but in "
            f"'{backbone.name}' the layer has {shape[0]} and {shape[1]}; name the right backbone "
            f"with {argument('--backbone')}"
        )
    return here
