"""The way in: one attention function that puts prompt keys and values before a layer's own.

transformers calls the function registered under a model's `attn_implementation` for every layer,
with whatever keyword arguments `forward` was given. The prompt travels as such an argument, so it
belongs to one call: nothing is left on the model, gradient checkpointing recomputes with the prompt
of its own call, and two batches with different prompts may be in flight.

Li & Liang 2021, section 4.1: the prefix is `P` past positions at every layer that all later
positions attend to.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

IMPLEMENTATION = "foreword_sdpa"
ARGUMENT = "foreword_prompt"


class PromptKeyValues:
    """Keys and values of P virtual tokens for every layer of a decoder, for one call.

    Args:
        keys: `[layers, P, kv_heads, head_dim]`, as the layer's own keys are after any rotation.
        values: the same shape.
    """

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys = keys
        self.values = values
        self.reached: set[int] = set()
        self._masks: list[tuple[Tensor | None, tuple[int, int], Tensor]] = []

    @property
    def length(self) -> int:
        """P."""
        return self.keys.shape[1]

    def before(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """A layer's keys and values `[B, kv_heads, T, head_dim]` with the prompt's in front."""
        self.reached.add(layer)
        return self._join(self.keys[layer], key), self._join(self.values[layer], value)

    @staticmethod
    def _join(prompt: Tensor, own: Tensor) -> Tensor:
        rows = prompt.to(device=own.device, dtype=own.dtype).transpose(0, 1)
        return torch.cat([rows.expand(own.shape[0], -1, -1, -1), own], dim=2)

    def mask(self, mask: Tensor | None, query: Tensor, key_length: int) -> Tensor:
        """The layer's mask `[B or 1, 1, T, P + T]`; layers that share a mask share the result."""
        size = (query.shape[2], key_length)
        for seen, seen_size, widened in self._masks:
            if seen is mask and seen_size == size:
                return widened
        widened = self._widen(mask, size, query)
        self._masks.append((mask, size, widened))
        return widened

    def _widen(self, mask: Tensor | None, size: tuple[int, int], query: Tensor) -> Tensor:
        queries, keys = size
        if mask is None:
            ones = torch.ones(queries, keys + self.length, dtype=torch.bool, device=query.device)
            return ones.tril(keys + self.length - queries)[None, None]
        visible = 1.0 if mask.dtype == torch.bool else 0.0
        return nn.functional.pad(mask, (self.length, 0), value=visible)


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Scaled dot-product attention, over the prompt's slots too where the call carries a prompt."""
    prompt: PromptKeyValues | None = kwargs.pop(ARGUMENT, None)
    if prompt is not None:
        attention_mask = prompt.mask(attention_mask, query, key.shape[2])
        key, value = prompt.before(module.layer_idx, key, value)  # type: ignore[arg-type]
    output: tuple[Tensor, None] = sdpa_attention_forward(
        module, query, key, value, attention_mask, **kwargs
    )
    return output


def register() -> None:
    """Make the function known to transformers. The mask goes in too: without it none is made."""
    AttentionInterface.register(IMPLEMENTATION, attention)
    AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)
