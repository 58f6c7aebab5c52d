"""What conditions one call of a backbone, and how it enters an attention.

A prompt is one object that belongs to one call: nothing is left on the model, gradient
checkpointing recomputes with the prompt of its own call, and two batches with different prompts may
be in flight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

from foreword.methods.axes import Site

PLACES = "foreword_places"
"""The attribute by which an attention module knows its places."""


@dataclass(frozen=True)
class Place:
    """Which attention a call is: a site and a layer of it."""

    site: Site
    layer: int


@dataclass(eq=False)
class PromptKeyValues:
    """Keys and values of P virtual tokens for chosen layers of a site.

    Attributes:
        keys: `[layers, P, kv_heads, key_dim]`, as the layer's own keys are after any rotation.
        values: `[layers, P, kv_heads, value_dim]`.
        layers: which layers they are for, in their order; all from the first where not given.
        dropout: on keys and values, drawn for each row of a batch and each layer.
    """

    keys: Tensor
    values: Tensor
    layers: Sequence[int] = ()
    dropout: float = 0.0
    _masks: list[tuple[Any, tuple[int, int], Any]] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        self.layers = tuple(self.layers) or tuple(range(self.keys.shape[0]))
        self._index = {layer: i for i, layer in enumerate(self.layers)}

    @property
    def length(self) -> int:
        """P."""
        return self.keys.shape[1]

    def covers(self, layer: int) -> bool:
        """Whether a layer has virtual tokens."""
        return layer in self._index

    def before(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """A layer's keys and values `[B, kv_heads, T, …_dim]` with the prompt's in front."""
        count, device, dtype = key.shape[0], key.device, key.dtype
        keys, values = self.rows(layer, count, dtype=dtype, device=device)
        return torch.cat([keys, key], dim=2), torch.cat([values, value], dim=2)

    def rows(
        self, layer: int, count: int, *, dtype: torch.dtype, device: torch.device | None = None
    ) -> tuple[Tensor, Tensor]:
        """A layer's keys and values for so many rows: two `[count, kv_heads, P, …_dim]`."""
        at = self._index[layer]
        keys, values = (
            side[at].to(device=device, dtype=dtype).transpose(0, 1).expand(count, -1, -1, -1)
            for side in (self.keys, self.values)
        )
        if not self.dropout:
            return keys, values
        drop = nn.functional.dropout
        return drop(keys, self.dropout), drop(values, self.dropout)

    def mask(self, mask: Any, size: tuple[int, int], widen: Callable[[], Any]) -> Any:
        """A widened mask; layers that share a mask share the result."""
        for seen, seen_size, widened in self._masks:
            if seen is mask and seen_size == size:
                return widened
        widened = widen()
        self._masks.append((mask, size, widened))
        del self._masks[:-8]  # decoding makes new ones at every step
        return widened


class Prompt:
    """Everything that conditions one call.

    Attributes:
        sites: keys and values by site.
        embeddings: `[n, width]`; a token id `vocabulary + i` of the input stands for row i.
        reached: the places it was asked for, whether or not it has anything there.
        past: what stands before the virtual tokens (`Layout.before`), where it was read already.
    """

    past: tuple[tuple[Tensor, Tensor], ...] | None = None

    def __init__(
        self, sites: Mapping[Site, PromptKeyValues] | None = None, embeddings: Tensor | None = None
    ) -> None:
        self.sites = dict(sites or {})
        self.embeddings = embeddings
        self.reached: set[Place] = set()
        self._calls: dict[nn.Module, int] = {}

    def enter(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Any,
        bias: Tensor | None,
    ) -> tuple[Tensor, Tensor, Any, Tensor | None]:
        """Keys, values, mask and position bias of an attention, with the prompt's slots in front.

        Args:
            module: the attention; its places say which site and layer it is.
            query: `[B, heads, Q, key_dim]`.
            key: `[B, kv_heads, K, key_dim]`; `value` `[B, kv_heads, K, value_dim]`.
            mask: as the implementation's mask function made it.
            bias: `[1, heads, Q, K]`, or none; virtual tokens have bias 0.
        """
        place = self._place(module)
        self.reached.add(place)
        tokens = self.sites.get(place.site)
        if tokens is None or not tokens.covers(place.layer):
            return key, value, mask, bias
        size = (query.shape[2], key.shape[2])
        causal = place.site == "decoder"
        wide = tokens.mask(
            mask, size, lambda: widen(mask, size, tokens.length, query.device, causal=causal)
        )
        if bias is not None:
            bias = nn.functional.pad(bias, (tokens.length, 0))
        return *tokens.before(place.layer, key, value), wide, bias

    def _place(self, module: nn.Module) -> Place:
        """Where a module stands; one that serves several layers is called in their order."""
        places: tuple[Place, ...] = getattr(module, PLACES)
        if len(places) == 1:
            return places[0]
        call = self._calls.get(module, 0)
        self._calls[module] = call + 1
        return places[call % len(places)]


class Recorder(Prompt):
    """No prompt: it keeps each attention's own keys and values, with their gradients.

    Attributes:
        found: by place, keys and values `[B, kv_heads, T, …_dim]`.
    """

    def __init__(self, embeddings: Tensor | None = None) -> None:
        super().__init__(embeddings=embeddings)
        self.found: dict[Place, tuple[Tensor, Tensor]] = {}

    def enter(
        self,
        module: nn.Module,
        query: Tensor,  # noqa: ARG002
        key: Tensor,
        value: Tensor,
        mask: Any,
        bias: Tensor | None,
    ) -> tuple[Tensor, Tensor, Any, Tensor | None]:
        """What came in."""
        self.found[self._place(module)] = (key, value)
        return key, value, mask, bias

    def rows(self, site: Site) -> tuple[Tensor, Tensor]:
        """A site's keys and values of the first row: two `[layers, T, kv_heads, …_dim]`."""
        layers = sorted((p.layer, kv) for p, kv in self.found.items() if p.site == site)
        return (
            stack([key[0].transpose(0, 1) for _, (key, _) in layers]),
            stack([value[0].transpose(0, 1) for _, (_, value) in layers]),
        )


def stack(layers: Sequence[Tensor]) -> Tensor:
    """Tensors of several layers as one, where the first lies: layers may lie on several devices."""
    return torch.stack([layer.to(layers[0].device) for layer in layers])


def widen(
    mask: Any, size: tuple[int, int], length: int, device: torch.device, *, causal: bool
) -> Any:
    """A mask with P more keys in front that every query sees.

    Args:
        mask: none; `[B or 1, 1, Q, K]` bool or additive; or a block mask (FlexAttention's).
        size: Q and K.
        length: P.
        device: where a new mask goes.
        causal: what no mask stands for: a causal attention, or one that sees everything.
    """
    queries, keys = size
    if mask is None:
        if not causal or queries == 1:
            return None
        ones = torch.ones(queries, keys + length, dtype=torch.bool, device=device)
        return ones.tril(keys + length - queries)[None, None]
    if isinstance(mask, BlockMask):
        return _widen_blocks(mask, size, length, device)
    visible = 1.0 if mask.dtype == torch.bool else 0.0
    return nn.functional.pad(mask, (length, 0), value=visible)


def _widen_blocks(
    mask: BlockMask, size: tuple[int, int], length: int, device: torch.device
) -> BlockMask:
    inner = mask.mask_mod

    def wide(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        return (kv < length) | inner(b, h, q, (kv - length).clamp(min=0))

    queries, keys = size
    return create_block_mask(
        wide, mask.shape[0], None, queries, keys + length, device=str(device), _compile=False
    )
