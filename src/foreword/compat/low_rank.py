"""LoRA in PEFT's format: `adapter_config.json` and one pair of tensors for each updated layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from foreword.artifact import read_checked
from foreword.compat.peft_types import PeftType, TaskType
from foreword.errors import ArtifactError
from foreword.manifest import DELTA, Manifest
from foreword.methods.axes import LowRank

BASE = "base_model.model."
"""Before the names of the base model's layers in PEFT's files."""


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
    if manifest.delta_sha256 is None:
        raise ArtifactError(f"{source}: is {manifest.method.name}, but has no {DELTA}")
    tensors = read_checked(source / DELTA, manifest.delta_sha256)
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
