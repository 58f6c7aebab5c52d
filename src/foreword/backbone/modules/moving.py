"""What of a backbone's own weights may be trained."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from foreword.backbone import devices
from foreword.backbone.modules import checkpointing, sharding, sublayers, whole
from foreword.backbone.modules.sharding import Held
from foreword.backbone.modules.sublayers import Ending
from foreword.backbone.prompts.attention import Attention
from foreword.backbone.shapes import Geometry
from foreword.backbone.weights import quantization as quantized
from foreword.backbone.weights.quantization import Quantization
from foreword.errors import BackboneError


class Moving:
    """The part of `Backbone` that training of its own weights asks."""

    model: PreTrainedModel
    geometry: Geometry
    name: str
    attention: Attention | Literal["own"]
    quantization: Quantization | None

    @cached_property
    def parameters(self) -> int:
        """How many numbers the model is made of, tied ones counted once."""
        return sharding.parameters(self.model)

    def movable(self, *, head: bool) -> dict[str, nn.Parameter]:
        """The parameters that an answer depends on, by name, tied ones once.

        Args:
            head: whether a head reads the last states, so that neither the language-model head nor
                a pooler has a part in it.
        """
        if not head:
            return dict(self.model.named_parameters())
        body = self.model.base_model
        pooler = getattr(body, "pooler", None)
        unread = set() if pooler is None else {id(p) for p in pooler.parameters()}
        read = {id(p) for p in body.parameters()} - unread
        return {name: p for name, p in self.model.named_parameters() if id(p) in read}

    def endings(self) -> list[Ending]:
        """The linear layers that end the sub-layers of all layers.

        Raises:
            BackboneError: they cannot be told.
        """
        return sublayers.endings(self.model, self.geometry)

    def last_layers(self, count: int) -> list[nn.Module]:
        """The last layers of a model's only stack, or of its decoder's.

        Raises:
            BackboneError: there are not as many, or they are no modules of their own.
        """
        stack = sublayers.layers_of(self.model, self.geometry)[-1]
        if count > len(stack):
            raise BackboneError(
                f"method.layers: {count} layers are to move, but '{self.name}' has {len(stack)}"
            )
        return list(stack)[-count:]

    def check_movable(self, moving: Collection[str] = ()) -> None:
        """Make sure that the model can be copied, and weights of its own trained.

        Args:
            moving: names of the parameters that are trained themselves.

        Raises:
            BackboneError: some of them are quantised, or the model lies in several places.
        """
        if devices.is_spread(self.model):
            raise BackboneError(
                "backbone.device_map: weights in several places are not trained here; leave it out "
                "to train the backbone itself"
            )
        chosen = set(moving)
        fixed = [
            name
            for name, parameter in self.model.named_parameters()
            if name in chosen and quantized.is_quantised(parameter)
        ]
        if fixed:
            raise BackboneError(
                f"backbone.quantization: quantised weights do not move, and {len(fixed)} that are "
                f"to move are quantised, the first of them {fixed[0]}; leave it out, or train what "
                "stands beside them: lora, adapter, or a prompt"
            )

    def shard(self, device: torch.device, how: sharding.Fully | sharding.Zero) -> Held:
        """Deal the weights out over processes, in place (`sharding.shard`).

        Raises:
            BackboneError: they are quantised, lie in several places, or are in no list of layers.
        """
        if self.quantization is not None or devices.is_spread(self.model):
            field = quantized.FIELD if self.quantization is not None else devices.FIELD
            raise BackboneError(
                f"{field}: weights that are dealt out over processes are plain ones in one "
                "place; leave it out, or start processes that each hold the backbone whole"
            )
        return sharding.shard(self.model, self.geometry, device, how)

    def plain(self, changed: Mapping[str, Tensor]) -> PreTrainedModel:
        """The model with weights that take the places of its own, and no quantised layer.

        Raises:
            BackboneError: something is quantised that cannot be made whole.
        """
        return whole.plain_model(self.model, changed)

    def check_trainable(self, *, recomputing: bool = False) -> None:
        """Make sure that gradients reach a prompt, and that they can be had as wished.

        Args:
            recomputing: whether gradient checkpointing is wished for.

        Raises:
            BackboneError: its attention or a quantised layer gives no gradients, or its layers
                cannot be recomputed.
        """
        if self.attention == "flex" and devices.entry(self.model).type == "cpu":
            raise BackboneError(
                "backbone.attention: 'flex' has no backward pass on a CPU, so it trains no prompt "
                "there; leave it at auto"
            )
        if recomputing:
            checkpointing.layers_of(self.model)
        if self.quantization is not None:
            quantized.check_gradients(self.model, self.quantization)

    def recomputing(self, on: bool = True) -> AbstractContextManager[None]:
        """Gradient checkpointing of forward passes while it lasts; nothing if it is not `on`.

        Raises:
            BackboneError: the family cannot do it.
        """
        return checkpointing.recomputing(self.model) if on else nullcontext()
