"""A frozen model whose weights are dealt out over the processes that run it together.

- `Fully`: torch's `fully_shard` (FSDP2; Zhao et al. 2023, "PyTorch FSDP"). Each process holds its
  share of every layer, of the table of words and of the language-model head. Each of these modules
  stands for itself, so that a part of the model may run alone, as it does where a decoder reads its
  virtual tokens. What several modules share (tied tables) and what lies beside the layers (norms)
  is held whole.
- `Zero`: DeepSpeed's ZeRO stage 3 (Rajbhandari et al. 2020, "ZeRO: Memory Optimizations Toward
  Training Trillion Parameter Models"). Each process holds its share of every weight.

A module's weights are gathered while it runs, forward or backward, and let go again; being frozen
they have no gradients to be sent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from foreword.backbone.modules import sublayers, tables
from foreword.backbone.prompts.key_values import Sides
from foreword.backbone.shapes import Geometry
from foreword.errors import BackboneError


@dataclass(frozen=True)
class Held:
    """Bytes of a model's weights.

    Attributes:
        here: in this process.
        whole: in all.
    """

    here: int
    whole: int


@dataclass(frozen=True)
class Fully:
    """By FSDP.

    Attributes:
        processes: how many there are, all of which deal the same model out.
        options: further ones of `fully_shard`.
    """

    processes: int
    options: Mapping[str, Any]

    def deal_out(self, model: PreTrainedModel, geometry: Geometry, device: torch.device) -> None:
        """Make `FSDPModule`s of the model's layers and ends.

        Raises:
            BackboneError: the model has no list of layers.
        """
        units = _units(model, geometry)
        mesh = init_device_mesh(device.type, (self.processes,))
        for unit in units:
            fully_shard(unit, mesh=mesh, **self.options)
        for tensor in [*model.parameters(), *model.buffers()]:
            if not isinstance(tensor, DTensor):
                tensor.data = tensor.data.to(device)


@dataclass(frozen=True)
class Zero:
    """By DeepSpeed's ZeRO-3, which is installed.

    Attributes:
        options: `zero_optimization` of DeepSpeed's config, of stage 3. What it leaves out is set
            such that as many numbers are gathered as the largest weight has, those in advance among
            them; DeepSpeed's own defaults keep a billion.
    """

    options: Mapping[str, Any]

    def deal_out(self, model: PreTrainedModel, geometry: Geometry, device: torch.device) -> None:
        """Have DeepSpeed part every weight of the model, one after the other; what is no weight
        moves to the device whole."""
        import deepspeed

        width = geometry.main.width
        zero = {
            "stage3_max_reuse_distance": 0,
            "stage3_max_live_parameters": max(one.numel() for one in model.parameters()),
            "stage3_prefetch_bucket_size": int(0.9 * width * width),  # these two are what "auto"
            "stage3_param_persistence_threshold": 10 * width,  # means to Accelerate
            **self.options,
        }
        config = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": zero}
        model.requires_grad_(False)
        for buffer in model.buffers():
            buffer.data = buffer.data.to(device)
        dtype = next(model.parameters()).dtype
        deepspeed.zero.Init(module=model, config_dict_or_path=config, dtype=dtype)
        engine, *_ = deepspeed.initialize(model=model, config=config)
        model.__dict__["_zero"] = (
            engine  # whose end would be that of its hooks; no part of the model
        )


def shard(
    model: PreTrainedModel, geometry: Geometry, device: torch.device, how: Fully | Zero
) -> Held:
    """Deal a frozen model's weights out, in place; one that is dealt out already stays so.

    Args:
        model: whose weights they are.
        geometry: the model's.
        device: where this process computes.
        how: by what.

    Raises:
        BackboneError: the model cannot be dealt out so.
    """
    if not is_sharded(model):
        how.deal_out(model, geometry, device)
    return held(model)


def is_sharded(model: PreTrainedModel) -> bool:
    """Whether a model's weights are dealt out."""
    return any(isinstance(module, FSDPModule) for module in model.modules()) or any(
        _is_parted(weight) for weight in model.parameters()
    )


def _is_parted(weight: nn.Parameter) -> bool:
    """Whether it is DeepSpeed's, which keeps what lies here as `ds_tensor`."""
    return hasattr(weight, "ds_tensor")


def taken_out(sides: Sides, states: Tensor) -> Sides:
    """What was taken out of layers in a forward pass, with a gradient of 0 for what it gave.

    A layer's weights are gathered for its backward pass when the gradient of what it gave arrives.
    Keys and values of the last layer have a gradient without that one having any.

    Args:
        sides: by layer.
        states: what the forward pass gave.
    """
    if isinstance(sides, tuple):
        return tuple(_taken_out(side, states) for side in sides)
    return _taken_out(sides, states)


def _taken_out(side: Tensor, states: Tensor) -> Tensor:
    out: Tensor = _TakenOut.apply(side, states)  # type: ignore[no-untyped-call]
    return out


class _TakenOut(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, side: Tensor, states: Tensor) -> Tensor:
        ctx.save_for_backward(states)
        return side.view_as(side)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        return gradient, torch.zeros_like(*ctx.saved_tensors)


def held(model: PreTrainedModel) -> Held:
    """What of a model's weights lies in this process."""
    here = sum(_here(one).nbytes for one in model.parameters())
    whole = sum(_whole(one) * one.element_size() for one in model.parameters())
    return Held(here, whole)


def parameters(model: PreTrainedModel) -> int:
    """How many numbers a model is made of, wherever they lie; tied ones count once."""
    if any(_is_parted(one) for one in model.parameters()):
        return sum(map(_whole, model.parameters()))
    return int(model.num_parameters())  # which knows of quantised ones


def _here(weight: nn.Parameter) -> Tensor:
    """What of a weight lies in this process."""
    if _is_parted(weight):
        return weight.ds_tensor  # type: ignore[no-any-return, attr-defined]
    return weight.to_local() if isinstance(weight, DTensor) else weight


def _whole(weight: nn.Parameter) -> int:
    """Of how many numbers all of a weight is."""
    return weight.ds_numel if _is_parted(weight) else weight.numel()  # type: ignore[attr-defined]


def _units(model: PreTrainedModel, geometry: Geometry) -> list[nn.Module]:
    """The modules that are dealt out, each for itself."""
    try:
        stacks = sublayers.layers_of(model, geometry)
    except BackboneError as error:
        raise BackboneError(
            f"backbone family '{model.config.model_type}' has no list of its layers, one module "
            "for each, so FSDP cannot deal its weights out; start without it"
        ) from error
    owners = Counter(id(p) for module in model.modules() for p in module._parameters.values())
    head = model.get_output_embeddings()
    ends = [*tables.of_words(model), *tables.beside(model), *([] if head is None else [head])]
    alone = [module for module in ends if all(owners[id(p)] == 1 for p in module.parameters())]
    return [*(layer for stack in stacks for layer in stack), *alone]
