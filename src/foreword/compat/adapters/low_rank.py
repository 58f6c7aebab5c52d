"""LoRA in PEFT's format: `adapter_config.json` and one pair of tensors for each updated layer."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from foreword.artifacts.manifest import DELTA, Manifest
from foreword.artifacts.stored import read_parts
from foreword.axes.readout import Head
from foreword.backbone import Backbone, name_of_body
from foreword.compat.adapter import (
    BASE,
    CONFIG,
    WEIGHTS,
    Adapter,
    AdapterConfig,
    Flag,
    Update,
    adapter,
    belongs,
    check_numbers,
    common,
)
from foreword.compat.adapter_head import AdapterHead
from foreword.compat.adapters.low_rank_fields import (
    MERGE,
    UNTIED,
    Alpha,
    Names,
    Numbers,
    Rank,
    Start,
    refuse_variants,
)
from foreword.compat.adapters.low_rank_layers import layer_of, shorter
from foreword.compat.head_export import written_head
from foreword.compat.head_kinds import modules_of
from foreword.compat.heads import is_pooler
from foreword.compat.peft_types import PeftType, TaskType
from foreword.errors import ArtifactError, UserError
from foreword.methods import LoRA
from foreword.methods.axes import LowRank
from foreword.recipe.problems import found
from foreword.tuned import TunedModel
from foreword.tuned.compose import compose

FACTORS = ("lora_A.weight", "lora_B.weight")
OUTPUTS = ("lm_head", "embed_out", "output_layer")
"""What transformers' classes call their output layer."""


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

    @property
    def size(self) -> str:
        """The rank, in words."""
        return f"rank {self.r}"

    def to_dict(self) -> dict[str, Any]:
        """All fields by name."""
        return asdict(self)


@adapter
class LowRankAdapter(AdapterConfig):
    """Of each updated layer `lora_A.weight` is `[r, in]` and `lora_B.weight` `[out, r]`.

    Which layers there are, the tensors say: of the fields that choose them none is evaluated.
    """

    what = "the updates"
    methods = (LoRA,)

    peft_type: Literal["LORA"]
    r: Rank = 8
    lora_alpha: Alpha = 8.0
    lora_dropout: float = Field(0.0, ge=0, lt=1, strict=True)
    use_rslora: Flag = False
    rank_pattern: dict[str, Rank] = Field({})
    alpha_pattern: dict[str, Alpha] = Field({})
    bias: Literal["none"] = "none"
    fan_in_fan_out: Flag = False
    init_lora_weights: Start = True
    target_modules: Names | None = None
    exclude_modules: Names | None = None
    layers_to_transform: Numbers | None = None
    layers_pattern: Names | None = None
    ensure_weight_tying: Flag = False
    eva_config: dict[str, Any] | None = None
    megatron_core: str | None = None
    qalora_group_size: int | None = None

    @classmethod
    def refuse(cls, file: Path, raw: Mapping[str, Any]) -> None:
        """LoRA that computes something else than W x + scale · B A x with the base model's own
        W."""
        refuse_variants(file, raw)

    def taken(
        self, file: Path, tensors: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Each layer's A and B, `LAYER.lora_A.weight`, by PEFT's name of the layer; and the
        head's tensors."""
        own, head = self._sorted_out(file, tensors)
        check_numbers(file, tensors)
        known = sorted({self.r, *self.rank_pattern.values()})
        ranks: set[int] = set()
        for layer, pair in own.items():
            if len(pair) < len(FACTORS):
                missing = next(part for part in FACTORS if part not in pair)
                raise ArtifactError(
                    f"{file}: {BASE}{layer} has no {missing}, only {next(iter(pair))}"
                )
            a, b = (pair[part] for part in FACTORS)
            if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1] or a.shape[0] not in known:
                raise ArtifactError(
                    f"{file}: {BASE}{layer} has A of shape {list(a.shape)} and B of shape "
                    f"{list(b.shape)}, but {CONFIG} says r {' or '.join(map(str, known))[:100]}: "
                    "expected [r, in] and [out, r]"
                )
            ranks.add(a.shape[0])
        if len(ranks) > 1:
            raise ArtifactError(
                f"{file}: rank_pattern: the updates have the ranks "
                f"{', '.join(map(str, sorted(ranks)))[:100]}, and LoRA here has one for all; "
                f"{MERGE}"
            )
        self._alpha(file.with_name(CONFIG), own)
        updates = {f"{layer}.{part}": pair[part] for layer, pair in own.items() for part in FACTORS}
        return updates, head

    def _sorted_out(
        self, file: Path, tensors: Mapping[str, Tensor]
    ) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor]]:
        """The factors by their layers, and the head's tensors."""
        heads = modules_of(self.task_type)
        factors: dict[str, dict[str, Tensor]] = {}
        head: dict[str, Tensor] = {}
        odd: list[str] = []
        for name, tensor in tensors.items():
            own = name.removeprefix(BASE)
            ending = next((part for part in FACTORS if own.endswith(f".{part}")), None)
            if own == name or not (ending or belongs(name, BASE, heads)):
                odd.append(name)
            elif ending:
                factors.setdefault(own.removesuffix(f".{ending}"), {})[ending] = tensor
            else:
                head[own] = tensor
        if odd or not factors:
            expected = f"{BASE}LAYER.{' and '.join(FACTORS)} of linear layers"
            if heads:
                expected += f" and those of {BASE}{' or '.join(heads)}"
            raise ArtifactError(
                f"{file}: expected {expected} alone; found "
                f"{str(sorted(odd) or sorted(tensors))[:200]}{_vocabulary(odd)}"
            )
        return dict(sorted(factors.items())), head

    def _alpha(self, file: Path, layers: Iterable[str]) -> float:
        """What the updates of all layers count with, over the rank or its root."""
        alphas = {alpha for alpha in self.alpha_pattern.values() if alpha != self.lora_alpha}
        used = {self.lora_alpha}
        if alphas:
            odd = [key for key in self.alpha_pattern if not re.fullmatch(r"\^?[\w.-]+", key)]
            if odd:
                raise ArtifactError(
                    f"{file}: alpha_pattern: {found(odd[0])} is a regular expression, of which "
                    "none out of a folder is run; name layers there"
                )
            used = {self._own_alpha(layer) for layer in layers}
        if len(used) > 1:
            raise ArtifactError(
                f"{file}: alpha_pattern: the updates count with alpha "
                f"{', '.join(f'{alpha:g}' for alpha in sorted(used))[:100]}, and LoRA here has one "
                f"for all; {MERGE}"
            )
        return used.pop()

    def _own_alpha(self, layer: str) -> float:
        """A layer's own, by the first key that its name ends in."""
        for key, alpha in self.alpha_pattern.items():
            if re.match(rf"(.*\.)?({key})$", layer):
                return alpha
        return self.lora_alpha

    def updates(self, adapter: Adapter) -> Updates:
        """Those of a checked folder."""
        a, b = FACTORS
        layers = [name.removesuffix(f".{a}") for name in adapter.tensors if name.endswith(a)]
        pairs = {
            layer: (adapter.tensors[f"{layer}.{a}"], adapter.tensors[f"{layer}.{b}"])
            for layer in layers
        }
        alpha = self._alpha(adapter.folder / CONFIG, layers)
        rank = next(iter(pairs.values()))[0].shape[0]
        # The alpha that makes alpha / r what PEFT multiplies each update by.
        return Updates(pairs, rank, alpha / math.sqrt(rank) * rank if self.use_rslora else alpha)

    def updates_of(self, adapter: Adapter, chosen: Callable[[str], bool]) -> list[Update]:
        """The updates of layers, chosen by their names."""
        updates = self.updates(adapter)
        scale = updates.alpha / updates.rank
        return [(a, b, scale) for layer, (a, b) in updates.pairs.items() if chosen(layer)]

    def composed(
        self, adapter: Adapter, backbone: Backbone, readout: Head | None
    ) -> tuple[LoRA, TunedModel]:
        """The backbone with the updates, and LoRA that trains such ones.

        Raises:
            ArtifactError: a layer is not there, has another shape, or is none that LoRA updates
                here.
            BackboneError: its weights cannot be updated.
            UserError: PEFT is not installed.
        """
        return _updated(adapter, self, backbone, readout)

    def notes(
        self,
        adapter: Adapter,
        backbone: Backbone,  # noqa: ARG002
        head: AdapterHead | None,
    ) -> list[str]:
        """Of an alpha that stands for another, and of an updated pooler."""
        notes, updates = [], self.updates(adapter)
        if self.use_rslora:
            notes.append(
                f"use_rslora: its updates count lora_alpha / sqrt(r) times, so alpha is stated as "
                f"{updates.alpha:g}, for which alpha / rank is as much"
            )
        if head is not None and any(is_pooler(layer) for layer in updates.pairs):
            notes.append(
                "the update of the pooler is put into the head's first layer, which it is"
                if head.pooled
                else f"the update of the pooler is left out: no {self.task_type} head of this "
                "model reads a pooler, in PEFT as here"
            )
        return notes

    @classmethod
    def written(cls, source: Path, manifest: Manifest) -> tuple[dict[str, Tensor], LoraConfig]:
        """The updates of an artifact."""
        head = written_head(source, manifest)
        moves = manifest.method.moves
        assert isinstance(moves, LowRank), "only LoRA has low-rank updates"
        tensors = read_parts(source, manifest)[DELTA]
        if head is not None:
            tensors = _below(manifest, tensors)
        layers = {
            name.removesuffix(".lora_A.weight").removesuffix(".lora_B.weight") for name in tensors
        }
        if set(tensors) != {f"{n}.{part}.weight" for n in layers for part in ("lora_A", "lora_B")}:
            raise ArtifactError(f"{source / DELTA}: expected lora_A and lora_B of each layer alone")
        config = LoraConfig(
            **common(manifest),
            r=moves.rank,
            lora_alpha=moves.alpha,
            lora_dropout=moves.dropout,
            target_modules=sorted(layers),
            fan_in_fan_out=bool(manifest.axes.get("transposed", False)),
        )
        if head is not None:
            config.task_type = head.task_type
            tensors = {**tensors, **head.tensors}
        return {BASE + name: tensor for name, tensor in tensors.items()}, config


def _below(manifest: Manifest, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """An encoder's layers by their names in a class with a head, whatever class they were trained
    in."""
    body = name_of_body(manifest.backbone.family)
    inside = f"{body}." if body and manifest.backbone.kind == "encoder" else ""
    return {
        name if name.startswith(inside) else inside + name: tensor
        for name, tensor in tensors.items()
    }


@dataclass(frozen=True, eq=False)
class Updates:
    """What a checked folder of LoRA holds.

    Attributes:
        pairs: by PEFT's names of the layers: A `[r, in]` and B `[out, r]`.
        rank: r, which is one for all.
        alpha: an update B A counts alpha / r times.
    """

    pairs: dict[str, tuple[Tensor, Tensor]]
    rank: int
    alpha: float


def _vocabulary(odd: Sequence[str]) -> str:
    """What is to be said where tensors are those of embeddings or of the output layer."""
    if any("lora_embedding" in name for name in odd):
        return f"; updates of embeddings are not computed here; {UNTIED}"
    outputs = sorted({part for name in odd for part in name.split(".") if part in OUTPUTS})
    if outputs:
        return (
            f"; it trained or resized the output layer ({', '.join(outputs)}), which LoRA here "
            f"leaves alone; {UNTIED}"
        )
    return ""


def _updated(
    adapter: Adapter, config: LowRankAdapter, backbone: Backbone, readout: Head | None
) -> tuple[LoRA, TunedModel]:
    """The backbone with an adapter's updates, and the options that say them."""
    updates = config.updates(adapter)
    tensors: dict[str, Tensor] = {}
    layers: set[str] = set()
    movable = backbone.movable(head=readout is not None)
    for name, pair in updates.pairs.items():
        if readout is not None and is_pooler(name):
            continue  # it is in the head already, or read by nothing
        layer = layer_of(adapter, backbone, name, pair, movable)
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
        rank=updates.rank,
        alpha=updates.alpha,
        dropout=config.lora_dropout,
        targets=tuple(sorted(layers)),
    )
    for targets in shorter(config.target_modules, layers):
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
