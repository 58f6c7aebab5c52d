"""A plain model of a quantised one: its layers as the classes they were made of, with the numbers
that they computed with; and how far these are from what was quantised."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from foreword.backbone.modules.copying import copied
from foreword.backbone.weights.quantization import FIELD, is_quantised, whole
from foreword.errors import BackboneError

_MARKS = ("is_loaded_in_4bit", "is_loaded_in_8bit", "_weight_conversions")
"""What transformers says of a quantised model on the model itself, beside its quantizer."""


def plain_model(model: PreTrainedModel, changed: Mapping[str, Tensor]) -> PreTrainedModel:
    """A model without quantised layers; what does not change is the model's own memory.

    Args:
        model: quantised or not; stays as it is.
        changed: weights that take the places of its own, by name, in any type; that of a quantised
            layer is `[out, in]`.

    Raises:
        BackboneError: something but a linear layer is quantised, or cannot be made whole.
    """
    names = dict(quantised_layers(model))
    outside = {n: w for n, w in changed.items() if n.rpartition(".")[0] not in names}
    new = copied(model, outside)
    with torch.device("meta"):
        classes = type(model)(new.config)
    for name, layer in names.items():
        weight, bias = changed.get(f"{name}.weight"), changed.get(f"{name}.bias", layer.bias)
        weight = (whole(layer) if weight is None else weight).to(model.dtype)
        new.set_submodule(name, _plain_layer(classes.get_submodule(name), weight, bias))
    if names:
        new.hf_quantizer.remove_quantization_config(new)
        for mark in _MARKS:
            vars(new).pop(mark, None)
    parameters = dict(new.named_parameters())
    with torch.no_grad():
        for name, weight in outside.items():
            parameters[name].copy_(weight)
    new.requires_grad_(False)
    return new


def quantised_layers(model: PreTrainedModel) -> Iterator[tuple[str, nn.Linear]]:
    """Its quantised linear layers, by name.

    Raises:
        BackboneError: a weight of something else is quantised.
    """
    for name, module in model.named_modules():
        own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        kinds = {part for part, tensor in own if is_quantised(tensor)}
        if not kinds:
            continue
        if not isinstance(module, nn.Linear) or "weight" not in kinds:
            raise BackboneError(
                f"{FIELD}: {name} ({type(module).__name__}) has quantised weights that no plain "
                "model can be made of here; only linear layers can be made whole"
            )
        yield name, module


def errors(model: PreTrainedModel, stored: PreTrainedModel) -> dict[str, tuple[float, float]]:
    """For each quantised layer the sum of squares by which it differs, and that of its weights.

    Args:
        model: quantised.
        stored: the same checkpoint, loaded without quantisation.
    """
    squares: dict[str, tuple[float, float]] = {}
    for name, layer in quantised_layers(model):
        plain = stored.get_submodule(name)
        stated = dict(plain.named_parameters())["weight"].detach().to(layer.weight.device).double()
        before = stated.T if isinstance(plain, Conv1D) else stated
        change = whole(layer).double() - before
        squares[name] = (change.square().sum().item(), before.square().sum().item())
    return squares


def _plain_layer(like: nn.Module, weight: Tensor, bias: Tensor | None) -> nn.Module:
    """A layer of the class of `like` around a weight `[out, in]`."""
    turned = isinstance(like, Conv1D)
    new = Conv1D(1, 1) if turned else nn.Linear(1, 1, bias=bias is not None)
    if isinstance(new, Conv1D):
        new.nf, new.nx = weight.shape
    else:
        new.out_features, new.in_features = weight.shape
    new.weight = nn.Parameter((weight.T if turned else weight).contiguous(), requires_grad=False)
    if bias is not None:
        new.bias = nn.Parameter(bias.detach().to(weight.dtype), requires_grad=False)
    return new.eval()
