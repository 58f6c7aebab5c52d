"""What conditions the rows of one call, and how it enters an attention.

A `Prompt` belongs to one call: nothing is left on the model, gradient checkpointing recomputes with
the prompt of its own call, and calls with different prompts may be in flight at the same time. All
rows of a call share one prompt (`PromptKeyValues`), or each row has its own (`RowKeyValues`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

from foreword.backbone.leaving_out import saves
from foreword.backbone.prompts import merged
from foreword.backbone.prompts.key_values import Front, KeyValues, PromptKeyValues, Sides, join_rows
from foreword.common.sites import Site

PLACES = "foreword_places"
"""The attribute by which an attention module knows its places."""
Attend = Callable[..., tuple[Tensor, Any]]
"""An attention function of transformers' interface."""
LONG, SHARE = 512, 4
"""A causal attention over so many tokens, at least so many times the virtual ones, has no mask."""


@dataclass(frozen=True)
class Place:
    """Which attention a call is: a site and a layer of it."""

    site: Site
    layer: int


class Prompt:
    """Everything that conditions the rows of one call.

    Attributes:
        sites: keys and values by site.
        embeddings: `[n, width]`; a token id `vocabulary + i` of the input stands for row i.
        reached: the places it was asked for, whether or not it has anything there.
        past: what stands before the virtual tokens (`Layout.before`), where it was read already.
        encoded: the encoder's last states of the rows' sources `[B, S, d]`, where they were read
            already.
        own_loss: what the virtual tokens themselves should predict, in nats: `[n]`.
    """

    past: tuple[tuple[Tensor, Tensor], ...] | None = None
    encoded: Tensor | None = None
    own_loss: Tensor | None = None

    def __init__(
        self, sites: Mapping[Site, KeyValues] | None = None, embeddings: Tensor | None = None
    ) -> None:
        self.sites: dict[Site, KeyValues] = dict(sites or {})
        self.embeddings = embeddings
        self.reached: set[Place] = set()
        self._calls: dict[nn.Module, int] = {}
        # Now: a layer may be computed again in another thread.
        self._unmasked = saves("masks")
        self._shares = saves("copies") and type(self).enter is Prompt.enter
        self._masks: list[tuple[Any, Tensor | None, tuple[tuple[int, int], int, bool], Any]] = []

    def attend(
        self,
        inner: Attend,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Any,
        **given: Any,
    ) -> tuple[Tensor, Any]:
        """An attention with the prompt's virtual tokens.

        Args:
            inner: computes attention.
            module: the attention; its places say which site and layer it is.
            query: `[B, heads, Q, key_dim]`.
            key: `[B, kv_heads, K, key_dim]`; `value` `[B, kv_heads, K, value_dim]`.
            mask: as the implementation's mask function made it.
            given: what else the model gives an attention function.

        Returns:
            `[B, Q, heads, value_dim]`, and what else `inner` returns.
        """
        place = self._place(module)
        self.reached.add(place)
        own, bias, causal = key.shape[2], given.pop("position_bias", None), place.site == "decoder"
        many = self._shares and bias is None and merged.many(self.sites.get(place.site))
        front = self._front(place) if many else None
        if front is not None and merged.serves(
            inner, front, query, key, value, mask, given, causal=causal
        ):
            scale = given.get("scaling")
            output = merged.attention(front, query, key, value, mask, scale, causal=causal)
            return self.added(place, query, output, scale), None
        key, value, mask, bias = self.enter(place, query, key, value, mask, bias, given)
        if bias is not None:
            given["position_bias"] = bias
        length = key.shape[2] - own
        if length and mask is None and causal and query.shape[2] > 1:
            output, weights = _square(inner, length, module, query, key, value, given)
        else:
            output, weights = inner(module, query, key, value, mask, **given)
        return self.added(place, query, output, given.get("scaling")), weights

    def enter(
        self,
        place: Place,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Any,
        bias: Tensor | None,
        given: Mapping[str, Any],  # noqa: ARG002
    ) -> tuple[Tensor, Tensor, Any, Tensor | None]:
        """Keys, values, mask and position bias of an attention, virtual tokens in front.

        Args:
            place: which attention it is.
            query, key, value, mask: see `attend`.
            bias: `[1, heads, Q, K]`, or none; virtual tokens have bias 0.
            given: what else the attention function gets.
        """
        front = self._front(place)
        if front is None:
            return key, value, mask, bias
        causal = place.site == "decoder"
        size = (query.shape[2], key.shape[2])
        if causal and mask is None and bias is None and self._does_without(size, front):
            wide = None
        else:
            wide = self._widened(mask, size, front, query.device, causal=causal)
        if bias is not None:
            bias = nn.functional.pad(bias, (front.length, 0))
        return *front.before(key, value), wide, bias

    def _front(self, place: Place) -> Front | None:
        """The virtual tokens of a place that share the softmax of the row's own keys."""
        tokens = self.sites.get(place.site)
        return None if tokens is None else tokens.front(place.layer)

    def added(self, place: Place, query: Tensor, output: Tensor, scaling: float | None) -> Tensor:
        """An attention's output and what virtual tokens with a softmax of their own add to it."""
        tokens = self.sites.get(place.site)
        apart = None if tokens is None else tokens.apart(place.layer)
        return output if apart is None else output + apart.attended(query, scaling).to(output)

    def taken(self, rows: Tensor) -> Prompt:
        """The prompt of some rows, by their numbers `[N]`."""
        encoded = None if self.encoded is None else self.encoded[rows.to(self.encoded.device)]
        return self._changed(lambda tokens: tokens.taken(rows), encoded)

    def repeated(self, times: int) -> Prompt:
        """The prompt of every row so many times, one after the other."""
        encoded = None if self.encoded is None else self.encoded.repeat_interleave(times, dim=0)
        return self._changed(lambda tokens: tokens.repeated(times), encoded)

    def _changed(self, change: Callable[[KeyValues], KeyValues], encoded: Tensor | None) -> Prompt:
        sites = {site: change(tokens) for site, tokens in self.sites.items()}
        changed = Prompt(sites, self.embeddings)
        changed.encoded = encoded
        return changed

    def _does_without(self, size: tuple[int, int], front: Front) -> bool:
        """Whether a causal attention over virtual tokens and text is faster with no mask."""
        queries, keys = size
        alike = queries == keys and front.seen is None
        return self._unmasked and alike and queries >= max(LONG, SHARE * front.length)

    def _widened(
        self, mask: Any, size: tuple[int, int], front: Front, device: torch.device, *, causal: bool
    ) -> Any:
        """A widened mask; layers that share a mask share the result."""
        alike = (size, front.length, causal)
        for known, known_seen, known_alike, wide in self._masks:
            if known is mask and known_seen is front.seen and known_alike == alike:
                return wide
        wide = widen(mask, size, front.length, device, seen=front.seen, causal=causal)
        self._masks.append((mask, front.seen, alike, wide))
        del self._masks[:-8]  # decoding makes new ones at every step
        return wide

    def _place(self, module: nn.Module) -> Place:
        """Where a module stands; one that serves several layers is called in their order."""
        places: tuple[Place, ...] = getattr(module, PLACES)
        if len(places) == 1:
            return places[0]
        call = self._calls.get(module, 0)
        self._calls[module] = call + 1
        return places[call % len(places)]


def joined(parts: Sequence[tuple[Prompt | None, int]]) -> Prompt | None:
    """One prompt for the rows of several, one after the other.

    The embeddings of all stand in one table, in the same order.

    Args:
        parts: a prompt, or none, and how many rows it is for.
    """
    prompts = [prompt for prompt, _ in parts]
    if len(parts) == 1 or all(prompt is None for prompt in prompts):
        return prompts[0]
    known: dict[Site, None] = {}
    for prompt in prompts:
        known |= dict.fromkeys(prompt.sites if prompt is not None else ())
    sites = {
        site: join_rows([(None if p is None else p.sites.get(site), rows) for p, rows in parts])
        for site in known
    }
    tables = [p.embeddings for p in prompts if p is not None and p.embeddings is not None]
    return Prompt(sites, torch.cat(tables) if tables else None)


def chosen(prompts: Sequence[Prompt], of: Sequence[int]) -> tuple[Prompt, int]:
    """One prompt for rows that take each one of several, and how many rows of the table of
    embeddings each of those has.

    Args:
        prompts: they enter at the same sites.
        of: the number of each row's prompt.
    """
    sites = {
        site: join_rows([(prompts[number].sites[site], 1) for number in of])
        for site in prompts[0].sites
    }
    tables = [prompt.embeddings for prompt in prompts if prompt.embeddings is not None]
    if not tables:
        return Prompt(sites), 0
    return Prompt(sites, torch.cat(tables)), len(tables[0])


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
        place: Place,
        query: Tensor,  # noqa: ARG002
        key: Tensor,
        value: Tensor,
        mask: Any,
        bias: Tensor | None,
        given: Mapping[str, Any],  # noqa: ARG002
    ) -> tuple[Tensor, Tensor, Any, Tensor | None]:
        """What came in."""
        self.found[place] = (key, value)
        return key, value, mask, bias

    def rows(self, site: Site) -> tuple[Sides, Sides]:
        """A site's keys and values of the first row: by layer `[T, kv_heads, …_dim]`, stacked where
        the layers are alike."""
        layers = sorted((p.layer, kv) for p, kv in self.found.items() if p.site == site)
        return (
            stack([key[0].transpose(0, 1) for _, (key, _) in layers]),
            stack([value[0].transpose(0, 1) for _, (_, value) in layers]),
        )


def stack(layers: Sequence[Tensor]) -> Sides:
    """Tensors of several layers as one, where the first lies: layers may lie on several devices.
    Layers of different shapes stay apart."""
    moved = [layer.to(layers[0].device) for layer in layers]
    alike = len({layer.shape for layer in moved}) == 1
    return torch.stack(moved) if alike else tuple(moved)


def _square(
    inner: Attend,
    length: int,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    given: Mapping[str, Any],
) -> tuple[Tensor, Any]:
    """A causal attention over P virtual tokens and Q of text, without a mask.

    A kernel's causal path asks for as many queries as keys and leaves out what a mask would hide.
    So P queries of zeros go in front, and what they get is dropped.
    """
    square = nn.functional.pad(query, (0, 0, length, 0))
    output, weights = inner(module, square, key, value, None, **given)
    return output[:, length:].contiguous(), None if weights is None else weights[:, :, length:]


def widen(
    mask: Any,
    size: tuple[int, int],
    length: int,
    device: torch.device,
    *,
    seen: Tensor | None = None,
    causal: bool,
) -> Any:
    """A mask with P more keys in front that every query of a row sees.

    Args:
        mask: none; `[B or 1, 1, Q, K]` bool or additive; or a block mask (FlexAttention's).
        size: Q and K.
        length: P.
        device: where a new mask goes.
        seen: `[B, P]`, which of them a row has; all if not given.
        causal: what no mask stands for: a causal attention, or one that sees everything.
    """
    queries, keys = size
    if isinstance(mask, BlockMask):
        return _widen_blocks(mask, size, length, device, seen)
    if mask is None:
        if seen is None and (not causal or queries == 1):
            return None
        mask = torch.ones(queries, keys, dtype=torch.bool, device=device)
        mask = (mask.tril(keys - queries) if causal else mask)[None, None]
    if seen is None:
        visible = 1.0 if mask.dtype == torch.bool else 0.0
        return nn.functional.pad(mask, (length, 0), value=visible)
    seen = seen.to(device)
    front = seen[:, None, None].expand(-1, mask.shape[1], queries, -1)
    own = mask.expand(len(seen), -1, queries, -1)
    if mask.dtype != torch.bool:
        hidden = torch.zeros_like(front, dtype=mask.dtype)
        front = hidden.masked_fill(~front, torch.finfo(mask.dtype).min)
    return torch.cat([front, own], dim=3)


def _widen_blocks(
    mask: BlockMask,
    size: tuple[int, int],
    length: int,
    device: torch.device,
    seen: Tensor | None = None,
) -> BlockMask:
    inner = mask.mask_mod

    def wide(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        front: Tensor = kv < length
        own = inner(b, h, q, (kv - length).clamp(min=0))
        if seen is None:
            return front | own
        return torch.where(front, seen[b, kv.clamp(max=length - 1)], own)

    queries, keys = size
    rows = mask.shape[0] if seen is None else len(seen)
    return create_block_mask(
        wide, rows, None, queries, keys + length, device=str(device), _compile=False
    )


__all__ = [
    "PLACES",
    "Attend",
    "Place",
    "Prompt",
    "PromptKeyValues",
    "Recorder",
    "chosen",
    "joined",
    "stack",
    "widen",
]
