"""Gradient checkpointing: what a layer computes on its way is computed again for the backward pass,
and not kept for it (Chen et al. 2016).

transformers' own switch asks for `model.train()`, which would turn on the dropout of a frozen
backbone, and takes the cache away through which some families get their prompt. This one leaves the
model in evaluation. A prompt belongs to its call, so the second computation has the same one.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop
from transformers import Cache, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from foreword.backbone import devices
from foreword.backbone.modules.forwards import Forward, Shared
from foreword.backbone.prompts import cache
from foreword.backbone.prompts.prompt import PLACES
from foreword.errors import BackboneError

FIELD = "training.gradient_checkpointing"
_wraps = Shared()


class _Here(threading.local):
    """The models that this thread recomputes the layers of, each as often as it was asked for."""

    def __init__(self) -> None:
        self.models: list[PreTrainedModel] = []


_here = _Here()


def layers_of(model: PreTrainedModel) -> list[nn.Module]:
    """The layers that can be computed again.

    Raises:
        BackboneError: the family has none, or one of them stands at several depths: a prompt tells
            its places by counting calls, which a second computation would add to.
    """
    layers: list[nn.Module] = []
    inside: set[nn.Module] = set()
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer) and module not in inside:
            layers.append(module)
            inside.update(module.modules())
    shared = any(len(getattr(module, PLACES, ())) > 1 for module in model.modules())
    if not layers or shared:
        reason = (
            "one module stands for several of its layers"
            if shared
            else "transformers marks none of its modules as a layer that may be computed twice"
        )
        raise BackboneError(
            f"{FIELD}: backbone family '{model.config.model_type}' cannot do it: {reason}; leave "
            "it at false"
        )
    return layers


def recomputes(model: PreTrainedModel) -> bool:
    """Whether this thread recomputes the layers of a model."""
    return any(one is model for one in _here.models)


@contextmanager
def recomputing(model: PreTrainedModel) -> Iterator[None]:
    """Forward passes with gradients that this thread runs keep the inputs of each layer alone.

    The backward pass may come later, after the end of this. Other threads that run the model in the
    meantime keep what they keep without it.

    Raises:
        BackboneError: the family cannot do it; see `layers_of`.
    """
    # torch stops a second computation once it has all that was kept, and accelerate would not come
    # to put away what it fetched for it.
    to_the_end = devices.is_spread(model)

    def recomputed(_: nn.Module, forward: Forward) -> Forward:
        def run(*args: Any, **kwargs: Any) -> Any:
            on = recomputes(model) and torch.is_grad_enabled()
            if not on or _writes([*args, *kwargs.values()]):
                return forward(*args, **kwargs)
            with set_checkpoint_early_stop(False) if to_the_end else nullcontext():
                return checkpoint(forward, *args, use_reentrant=False, **kwargs)

        return run

    with _wraps.on(layers_of(model), recomputed):
        _here.models.append(model)
        try:
            yield
        finally:
            _here.models.remove(model)


def _writes(given: Iterable[Any]) -> bool:
    """Whether a layer would write into a cache, and a second computation write once more."""
    return any(isinstance(one, Cache) and not cache.is_read_only(one) for one in given)
