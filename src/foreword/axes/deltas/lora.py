"""Low-rank updates of chosen weights move (Hu et al. 2021, section 4.1), through PEFT's injection.

W x becomes W x + (alpha / rank) B A x. B starts at zero, so that nothing changes at first.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from foreword.axes.deltas.base import Moving
from foreword.backbone import LINEAR, Backbone
from foreword.backbone.weights.quantization import whole
from foreword.errors import UserError, did_you_mean

NAME = "default"
"""What PEFT calls an adapter that has no name; it stands in its modules' names, not in its files.
"""


QUERIES_AND_VALUES = (
    ("q_proj", "v_proj"),
    ("query", "value"),
    ("q", "v"),
    ("q_lin", "v_lin"),
    ("qkv_proj",),
    ("Wqkv",),
)


class LoRA(Moving):
    """An update of each chosen linear layer's weight.

    Args:
        backbone: what is copied; all of its weights are shared.
        rank: of the updates.
        alpha: they count alpha / rank times.
        dropout: on their input, in training steps alone.
        targets: ends of the names of the layers; `("all",)` for all but the output; PEFT's choice
            for the family if not given.
        head: whether a head reads its last states.

    Raises:
        UserError: PEFT is not installed, or no layer is named so.
        BackboneError: the weights cannot be copied.
    """

    kind: ClassVar[str] = "lora"

    def __init__(
        self,
        backbone: Backbone,
        *,
        rank: int = 4,
        alpha: float = 32.0,
        dropout: float = 0.1,
        targets: Sequence[str] | None = None,
        head: bool = False,
    ) -> None:
        if find_spec("peft") is None:
            raise UserError(
                "method: LoRA needs PEFT, which is not installed here; pip install 'foreword[lora]'"
            )
        from peft import LoraConfig

        backbone.check_movable()
        self.chosen = _chosen(backbone, targets, head=head)
        plain = [isinstance(backbone.model.get_submodule(n), nn.Linear) for n in self.chosen]
        if len(set(plain)) > 1:
            raise UserError(
                f"method.targets: some of the layers named {', '.join(targets or ())} keep their "
                "weights turned over and others do not, which PEFT cannot have in one; name one "
                "kind"
            )
        self.transposed = not plain[0]
        copied = backbone.copied()
        config = LoraConfig(
            r=rank,
            lora_alpha=alpha,  # type: ignore[arg-type]
            lora_dropout=dropout,
            target_modules=[f"model.{name}" for name in self.chosen],
            fan_in_fan_out=self.transposed,
        )
        _inject(config, copied)
        super().__init__(backbone, copied)
        dtype = torch.promote_types(backbone.model.dtype, torch.float32)
        self.layers: dict[str, Any] = {n: copied.model.get_submodule(n) for n in self.chosen}
        self._dropouts: list[nn.Module] = []
        for name, layer in self.layers.items():
            layer.lora_dropout[NAME] = dropped = _Dropout(dropout)
            self._dropouts.append(dropped)
            for part in ("lora_A", "lora_B"):
                factor = getattr(layer, part)[NAME].to(dtype)
                self.move([(f"{name}.{part}.weight", factor.weight)])

    def train(self, mode: bool = True) -> Self:
        """Turn the updates' own dropout on or off."""
        super().train(mode)
        for dropout in self._dropouts:
            dropout.train(mode)
        return self

    @torch.no_grad()
    def weights(self) -> dict[str, Tensor]:
        """The updated weights, in the update's type: each layer's own plus its update. A quantised
        layer's own are those it computes with, `[out, in]`."""
        merged: dict[str, Tensor] = {}
        for name, layer in self.layers.items():
            update = layer.get_delta_weight(NAME)
            merged[f"{name}.weight"] = whole(layer.get_base_layer()).to(update.dtype) + update
        return merged

    def stated(self) -> dict[str, Any]:
        """What PEFT's format says of it, and its options do not."""
        return {"targets": list(self.chosen), "transposed": self.transposed}


def _inject(config: Any, backbone: Backbone) -> None:
    """Put PEFT's layers around those of a copied model.

    Raises:
        UserError: PEFT has no LoRA for how they are quantised.
    """
    from peft import inject_adapter_in_model

    # Where PEFT sees a config with experts, it takes dense layers by their names for experts.
    around = nn.ModuleDict({"model": backbone.model})
    for name in ("is_loaded_in_4bit", "is_loaded_in_8bit", "hf_quantizer"):  # it asks for them
        if hasattr(backbone.model, name):
            setattr(around, name, getattr(backbone.model, name))
    try:
        inject_adapter_in_model(config, around)
    except (ValueError, TypeError, ImportError) as error:
        if backbone.quantization is None:
            raise
        raise UserError(
            f"backbone.quantization: PEFT has no LoRA for layers that are quantised like this "
            f"({error}); take bitsandbytes or torchao"
        ) from error


class _Dropout(nn.Module):
    """In training steps alone, and not in the evaluations between them."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """`x`, some of its numbers zero and the others larger."""
        active = self.training and torch.is_grad_enabled()
        return nn.functional.dropout(x, self.share, training=active)


def _chosen(backbone: Backbone, targets: Sequence[str] | None, *, head: bool) -> list[str]:
    """The full names of the layers that are updated.

    Raises:
        UserError: no layer is named so.
    """
    model = backbone.model
    family = model.config.model_type
    weights = {name.removesuffix(".weight") for name in backbone.movable(head=head)}
    output = model.get_output_embeddings()
    linear = [
        name
        for name, module in model.named_modules()
        if isinstance(module, LINEAR) and module is not output and name in weights
    ]
    if targets is None:
        from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as KNOWN

        known = KNOWN.get(family)
        targets = known if isinstance(known, list) else _queries_and_values(linear)
        if targets is None:
            raise UserError(
                f"method.targets: '{backbone.name}' ({family}) has no layers for queries and "
                f"values that are known by their names; name some of its linear layers "
                f"({_ends(linear)}), or [all]"
            )
    if "all" in targets:
        return linear
    for target in targets:
        if not any(_is_at_the_end(target, name) for name in linear):
            ends = {name.rpartition(".")[2] for name in linear}
            raise UserError(
                f"method.targets: no linear layer of '{backbone.name}' ({family}) is named "
                f"'{target}'{did_you_mean(target, ends)}; there are {_ends(linear)}, and [all]"
            )
    return [name for name in linear if any(_is_at_the_end(t, name) for t in targets)]


def _queries_and_values(linear: Sequence[str]) -> Sequence[str] | None:
    """What an attention calls its queries and values, in a family that PEFT does not know."""
    ends = {name.rpartition(".")[2] for name in linear}
    return next((names for names in QUERIES_AND_VALUES if ends.issuperset(names)), None)


def _is_at_the_end(target: str, name: str) -> bool:
    return name == target or name.endswith(f".{target}")


def _ends(names: Sequence[str]) -> str:
    return ", ".join(sorted({name.rpartition(".")[2] for name in names})[:20])
