"""A prompt in a model's own cache: how every step of decoding has it, and the only way in for
families whose attention does not go through transformers' interface (BLOOM, Falcon, GPT-J)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, EncoderDecoderCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from foreword.backbone.prompts.key_values import KeyValues, Past


def fill(
    model: PreTrainedModel, tokens: KeyValues | None, *, rows: int, past: Past = ()
) -> DynamicCache:
    """A cache for B rows whose first P positions are the prompt's, after what rows have read.

    Args:
        model: whose cache it is.
        tokens: of every layer.
        rows: B; for beam search the number of beams in all.
        past: what stands before the prompt. Nothing is then forgotten: a window is kept by masks.
    """
    if past:
        cache = DynamicCache()
        cache.layers = [_Following() for _ in past]
        for layer in range(len(past)):
            cache.update(*_front(tokens, layer, rows, model, past), layer)
        return cache
    assert tokens is not None, "there is nothing to fill it with"
    whole = not model.config.is_encoder_decoder  # the config of a T5 counts its encoder's layers
    cache = DynamicCache(config=model.config if whole else None)
    cache.layers = [_Following() if type(one) is DynamicLayer else one for one in cache.layers]
    for layer in range(len(tokens.layers)):
        cache.update(*_expand(tokens, layer, rows, model), layer)
    return cache


def new(model: PreTrainedModel) -> DynamicCache:
    """An empty cache for a decoder."""
    return DynamicCache(config=model.config)


def empty(decoder: Cache | None = None) -> EncoderDecoderCache:
    """A cache for an encoder-decoder that grows as deep as its decoder is; the one that
    transformers makes for a T5 has its encoder's layers.

    Args:
        decoder: what its decoder has seen already.
    """
    return EncoderDecoderCache(DynamicCache() if decoder is None else decoder, DynamicCache())


def read_only(
    model: PreTrainedModel, tokens: KeyValues | None, *, rows: int, past: Past = ()
) -> Cache:
    """The same for one forward pass: what the model writes is returned and not kept, so that a
    layer may be computed again for its gradients."""
    cache = DynamicCache()
    layers = len(past) if tokens is None else len(tokens.layers)
    cache.layers = [_Prefix(*_front(tokens, layer, rows, model, past)) for layer in range(layers)]
    return cache


def is_read_only(cache: Cache) -> bool:
    """Whether a cache is of `read_only`'s making, or one that a layer writes into."""
    layers = getattr(cache, "layers", [])
    return bool(layers) and all(isinstance(layer, _Prefix) for layer in layers)


def _front(
    tokens: KeyValues | None, layer: int, rows: int, model: PreTrainedModel, past: Past
) -> tuple[Tensor, Tensor]:
    """A layer's keys and values of all that rows have behind them."""
    if not past:
        assert tokens is not None, "there is nothing in front"
        return _expand(tokens, layer, rows, model)
    keys, values = (side.repeat_interleave(rows // side.shape[0], 0) for side in past[layer])
    if tokens is None:
        return keys, values
    own = (side.to(keys.device) for side in _expand(tokens, layer, rows, model))
    key, value = (
        torch.cat([side, virtual], dim=2) for side, virtual in zip((keys, values), own, strict=True)
    )
    return key, value


def _expand(
    tokens: KeyValues, layer: int, rows: int, model: PreTrainedModel
) -> tuple[Tensor, Tensor]:
    front = tokens.front(layer)
    assert front is not None, "in a cache virtual tokens share the softmax of the text"
    return front.of_rows(rows, model.dtype)


class _Following(DynamicLayer):  # type: ignore[misc]
    """What it was filled with goes to the device that its layer computes on."""

    keys: Tensor
    values: Tensor

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """The cached and the given ones, one after the other."""
        if self.is_initialized:
            self.keys = self.keys.to(key_states.device)
            self.values = self.values.to(value_states.device)
        keys_values: tuple[Tensor, Tensor] = super().update(
            key_states, value_states, *args, **kwargs
        )
        return keys_values


class _Prefix(DynamicLayer):  # type: ignore[misc]
    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.keys, self.values = keys, values

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """The prompt's and the given ones, one after the other."""
        return (
            torch.cat([self.keys.to(key_states.device), key_states], dim=-2),
            torch.cat([self.values.to(value_states.device), value_states], dim=-2),
        )
