"""LLaMA-Adapter in PEFT's format: an adaption prompt and a gate for each of the last layers."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from foreword.artifacts.manifest import TENSORS, Manifest
from foreword.artifacts.stored import read_parts
from foreword.axes.readout import Head
from foreword.backbone import Backbone
from foreword.compat.adapter import (
    BASE,
    CONFIG,
    Adapter,
    AdapterConfig,
    adapter,
    check_numbers,
    common,
)
from foreword.compat.adapters.named import with_named
from foreword.compat.peft_types import PeftType, TaskType
from foreword.errors import ArtifactError, UserError
from foreword.methods import LLaMAAdapter, MethodChoice
from foreword.tuned import TunedModel

FAMILIES = ("llama", "mistral")
"""Where PEFT computes what the method says; its third, GPT-2, is refused by name."""
ON_GPT2 = (
    "its backbone is a GPT-2, where PEFT adds what the prompts give behind the output projection, "
    "not before it as the method has it: the same numbers would give other answers"
)
ATTENTION = "self_attn"
NAME = re.compile(rf"{re.escape(BASE)}model\.layers\.(\d{{1,5}})\.{ATTENTION}\.adaption_(\w+)")
"""A stored tensor: the number of its layer, and `prompt` `[1, P, d]` or `gate` `[1]`."""


@dataclass
class AdaptionPromptConfig:
    """PEFT's configuration.

    Attributes:
        adapter_len: P.
        adapter_layers: how many layers carry a prompt, the last ones.
        target_modules: what the family calls its attentions.
    """

    kind: ClassVar[PeftType] = PeftType.ADAPTION_PROMPT

    task_type: TaskType | str | None = None
    peft_type: PeftType | str = PeftType.ADAPTION_PROMPT
    base_model_name_or_path: str | None = None
    revision: str | None = None
    inference_mode: bool = True
    target_modules: str | None = None
    adapter_len: int | None = None
    adapter_layers: int | None = None

    @property
    def num_virtual_tokens(self) -> int | None:
        """P."""
        return self.adapter_len

    @property
    def size(self) -> str:
        """P, in words."""
        return f"{self.adapter_len} tokens"

    def to_dict(self) -> dict[str, Any]:
        """All fields by name."""
        return asdict(self)


@adapter
class AdaptionAdapter(AdapterConfig):
    """Of each of the last layers `adaption_prompt` is `[1, P, d]`, `adaption_gate` `[1]`."""

    methods = (LLaMAAdapter,)

    peft_type: Literal["ADAPTION_PROMPT"]
    task_type: Literal["CAUSAL_LM"]
    adapter_len: int = Field(ge=1, le=4096, strict=True)
    adapter_layers: int = Field(ge=1, le=10**4, strict=True)
    target_modules: Literal["self_attn", "attn"] | None = None

    def taken(
        self, file: Path, tensors: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """`decoder.prompts` `[layers, P, d]`, `decoder.gates` `[layers, 1]`, `decoder.layers`, by
        the names of the injection here."""
        check_numbers(file, tensors)
        if self.target_modules == "attn":
            raise ArtifactError(f"{file}: {ON_GPT2}")
        by_layer: dict[str, dict[int, Tensor]] = {"prompt": {}, "gate": {}}
        odd: list[str] = []
        for name, tensor in tensors.items():
            match = NAME.fullmatch(name)
            shape = None if match is None else list(tensor.shape)
            if match is not None and match[2] == "gate" and shape == [1]:
                by_layer["gate"][int(match[1])] = tensor
            elif match is not None and match[2] == "prompt" and self._is_prompt(tensor):
                by_layer["prompt"][int(match[1])] = tensor[0]
            else:
                odd.append(f"{name} {list(tensor.shape)}")
        layers = sorted(by_layer["prompt"])
        if odd or layers != sorted(by_layer["gate"]) or not _in_a_row(layers, self.adapter_layers):
            raise ArtifactError(
                f"{file}: expected {BASE}model.layers.N.{ATTENTION}.adaption_prompt [1, "
                f"{self.adapter_len}, d] and .adaption_gate [1] of the last {self.adapter_layers} "
                f"layers (adapter_len and adapter_layers of {CONFIG}); found "
                f"{', '.join(sorted(odd) or sorted(tensors))[:300]}"
            )
        if len({(each.shape, each.dtype) for each in by_layer["prompt"].values()}) > 1:
            raise ArtifactError(f"{file}: its adaption prompts differ in their widths or types")
        named = {
            "decoder.prompts": torch.stack([by_layer["prompt"][layer] for layer in layers]),
            "decoder.gates": torch.stack([by_layer["gate"][layer] for layer in layers]),
            "decoder.layers": torch.tensor(layers),
        }
        return named, {}

    def _is_prompt(self, tensor: Tensor) -> bool:
        return tensor.ndim == 3 and tuple(tensor.shape[:2]) == (1, self.adapter_len)

    def composed(
        self,
        adapter: Adapter,
        backbone: Backbone,
        readout: Head | None,
    ) -> tuple[MethodChoice, TunedModel]:
        """LLaMA-Adapter with a gate of each layer, without tanh."""
        method = self._method(backbone)
        return method, with_named(adapter, adapter.tensors, backbone, method, readout)

    def _method(self, backbone: Backbone) -> LLaMAAdapter:
        """The method, where PEFT computes it on this backbone."""
        refuse_others(backbone.model.config.model_type)
        for name, module in backbone.model.named_modules():
            if name.endswith(f"{ATTENTION}.o_proj") and module.bias is not None:
                raise UserError(
                    f"on '{backbone.name}' PEFT adds the bias of {name} twice; the same numbers "
                    "would give other answers here"
                )
        return LLaMAAdapter(
            name="llama-adapter",
            length=self.adapter_len,
            layers=self.adapter_layers,
            gate="layer",
            tanh=False,
        )

    @classmethod
    def written(
        cls, source: Path, manifest: Manifest
    ) -> tuple[dict[str, Tensor], AdaptionPromptConfig]:
        """The prompts and gates."""
        method = manifest.method
        assert isinstance(method, LLaMAAdapter), "only LLaMA-Adapter has adaption prompts"
        try:
            refuse_others(manifest.backbone.family)
        except UserError as error:
            raise UserError(f"{source}: {error}") from error
        for axis, usual in (("delta", "none"), ("readout", "generation")):
            if manifest.axes.get(axis, usual) != usual:
                raise UserError(
                    f"{source}: its {axis} is {str(manifest.axes[axis])[:60]}, for which adaption "
                    f"prompts in PEFT's format have no place; only {usual} can be exported"
                )
        tensors = read_parts(source, manifest)[TENSORS]
        prompts, gates, layers = (
            tensors.get(f"decoder.{name}") for name in ("prompts", "gates", "layers")
        )
        if (
            prompts is None
            or gates is None
            or layers is None
            or (prompts.ndim, gates.ndim) != (3, 2)
        ):
            raise ArtifactError(
                f"{source / TENSORS}: expected decoder.prompts [layers, P, d], decoder.gates "
                "[layers, heads or 1] and decoder.layers [layers]"
            )
        if not len(prompts) == len(gates) == len(layers) or not gates.shape[1]:
            raise ArtifactError(
                f"{source / TENSORS}: its tensors are for different numbers of layers"
            )
        if not torch.equal(gates, gates[:, :1].expand_as(gates)):
            raise UserError(
                f"{source}: has a gate of each head, and PEFT has one for a layer; train with "
                "`gate: layer` to export"
            )
        counted = gates[:, 0].tanh() if method.tanh else gates[:, 0]
        written: dict[str, Tensor] = {}
        for layer, prompt, gate in zip(layers.tolist(), prompts, counted, strict=True):
            at = f"{BASE}model.layers.{layer}.{ATTENTION}"
            written[f"{at}.adaption_prompt"] = prompt[None].contiguous()
            written[f"{at}.adaption_gate"] = gate[None].contiguous()
        config = AdaptionPromptConfig(
            **common(manifest),
            target_modules=ATTENTION,
            adapter_len=prompts.shape[1],
            adapter_layers=len(prompts),
        )
        return written, config


def _in_a_row(layers: list[int], many: int) -> bool:
    return len(layers) == many and layers == list(range(layers[0], layers[0] + many))


def refuse_others(family: str) -> None:
    """Raise UserError for families on which PEFT runs no adaption prompts as the paper has them."""
    if family == "gpt2":
        raise UserError(ON_GPT2)
    if family not in FAMILIES:
        raise UserError(
            f"its backbone is of the family '{family[:60]}', on which PEFT has no adaption "
            f"prompts; it has them on {' and '.join(FAMILIES)}"
        )
