"""A model's layers, and where in them its sub-layers end, found out by running it on a few tokens.

A layer is one of a list of modules as long as the config says that there are layers. A sub-layer
(an attention, or the feed-forward part) ends in a linear layer, whose output is added to what came
in. In the first layer a token's state knows of no other token yet: the first linear layer that can
tell another token changed comes right after the attention. The last linear layer ends the
feed-forward part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from foreword.backbone.geometry import example_inputs
from foreword.backbone.modules import tables
from foreword.backbone.shapes import Geometry
from foreword.errors import BackboneError

LINEAR = (nn.Linear, Conv1D)


def layers_of(model: PreTrainedModel, geometry: Geometry) -> list[nn.ModuleList]:
    """The lists of layers: one, or the encoder's and the decoder's.

    Raises:
        BackboneError: the model has no such list; one module may stand for several layers.
    """
    if geometry.kind != "encoder-decoder":
        return [_list(model, model.base_model, geometry.main.layers)]
    return [
        _list(model, model.get_encoder(), geometry.sites["encoder"].layers),
        _list(model, model.get_decoder(), geometry.sites["decoder"].layers),
    ]


def _list(model: PreTrainedModel, part: nn.Module, count: int) -> nn.ModuleList:
    candidates: list[nn.ModuleList] = []
    inside: set[nn.Module] = set()
    for module in part.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count and module not in inside:
            candidates.append(module)
            inside.update(module.modules())
    if len(candidates) != 1 or len(set(candidates[0])) < count:
        raise BackboneError(
            f"backbone family '{model.config.model_type}' has no list of its {count} layers, one "
            "module for each, so nothing can move in some of them alone; let everything move "
            "(delta: full), or train a prompt"
        )
    return candidates[0]


@dataclass(frozen=True)
class Ending:
    """The linear layer that ends a sub-layer.

    Attributes:
        name: in the model.
        width: of what it gives.
    """

    name: str
    width: int


@dataclass(frozen=True)
class _Call:
    """What a linear layer gave: `[rows, width]`, row after row of one text."""

    module: nn.Module
    rows: Tensor


def endings(model: PreTrainedModel, geometry: Geometry) -> list[Ending]:
    """Where the sub-layers of all layers end: two a layer, three where a cross-attention is.

    Raises:
        BackboneError: they cannot be told; a layer may hand its tokens to several experts.
    """
    names = {module: name for name, module in model.named_modules()}
    stacks = layers_of(model, geometry)
    if any(_has_experts(layer) for stack in stacks for layer in stack):
        raise _refusal(model, "its layers hand their tokens to several experts")
    if tables.beside(model):
        raise _refusal(model, "its layers end in a part that adds something by the word")
    given = example_inputs(model, geometry.kind)
    changed = {
        key: _run(model, geometry, stacks, {**given, key: _with_another_first(model, ids)})
        for key, ids in given.items()
        if key.endswith("input_ids")
    }
    calls = _run(model, geometry, stacks, given)
    ends: list[Ending] = []
    for stack, own in zip(stacks, (["input_ids"], [*changed]), strict=False):
        tokens = given[own[-1]].shape[1]
        paths = [
            _after_attention(model, stack[0], calls, changed[key], tokens) for key in reversed(own)
        ]
        for layer in stack:
            ends += [
                Ending(names[module], width)
                for module, width in _in_layer(model, layer, paths, calls, tokens)
            ]
    return ends


def _has_experts(layer: nn.Module) -> bool:
    """Whether a list inside a layer has modules of one kind, or a weight several matrices."""
    return any(weight.ndim > 2 for weight in layer.parameters()) or any(
        len(kinds := [type(member) for member in module.children()]) > len(set(kinds))
        for module in layer.modules()
        if isinstance(module, nn.ModuleList | nn.ModuleDict)
    )


def _with_another_first(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """The same text with another first token, which is no padding."""
    pad = getattr(model.config.get_text_config(), "pad_token_id", None)
    taken = {pad, *ids[0].tolist()}
    new = ids.clone()
    new[0, 0] = next(i for i in range(len(taken) + 1) if i not in taken)
    return new


def _run(
    model: PreTrainedModel,
    geometry: Geometry,
    stacks: list[nn.ModuleList],
    given: Mapping[str, Tensor],
) -> list[_Call]:
    """What the layers' linear layers give, in the order of their calls."""
    calls: list[_Call] = []

    def keep(module: nn.Module, _: object, output: Tensor) -> None:
        calls.append(_Call(module, output.detach().reshape(-1, output.shape[-1]).clone()))

    handles = [
        module.register_forward_hook(keep)
        for stack in stacks
        for module in stack.modules()
        if isinstance(module, LINEAR)
    ]
    try:
        with torch.no_grad():
            model(**given, **({} if geometry.kind == "encoder" else {"use_cache": False}))
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _after_attention(
    model: PreTrainedModel,
    layer: nn.Module,
    calls: list[_Call],
    others: list[_Call],
    tokens: int,
) -> str:
    """The path inside a first layer of the linear layer that ends an attention over a text."""
    inside: dict[nn.Module, str] = {module: name for name, module in layer.named_modules()}
    if len(calls) == len(others):
        for call, other in zip(calls, others, strict=True):
            if call.module is not other.module:
                break
            if call.module not in inside or len(call.rows) != tokens:
                continue
            if not torch.equal(call.rows[-1], other.rows[-1]):
                return inside[call.module]
    raise _refusal(model, "no linear layer comes after its attention")


def _in_layer(
    model: PreTrainedModel,
    layer: nn.Module,
    paths: list[str],
    calls: list[_Call],
    tokens: int,
) -> list[tuple[nn.Module, int]]:
    """The linear layers that end a layer's sub-layers, with their widths."""
    inside = {name: module for name, module in layer.named_modules() if isinstance(module, LINEAR)}
    called = [call for call in calls if call.module in set(inside.values())]
    if {call.module for call in called} != set(inside.values()):
        raise _refusal(model, "not all of a layer's linear layers see every token")
    widths = {call.module: call.rows.shape[1] for call in called}
    attentions = [inside[path] for path in paths if path in inside]
    last = called[-1]
    if (
        len(attentions) < len(paths)
        or last.module in attentions
        or len({widths[module] for module in [*attentions, last.module]}) > 1
        or len(last.rows) != tokens
    ):
        raise _refusal(model, "no one linear layer ends the feed-forward part of each layer")
    return [(module, widths[module]) for module in [*attentions, last.module]]


def _refusal(model: PreTrainedModel, reason: str) -> BackboneError:
    return BackboneError(
        f"backbone family '{model.config.model_type}' has no place for adapters: {reason}; choose "
        "LoRA, BitFit or a prompt"
    )
