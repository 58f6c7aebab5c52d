"""One call of a backbone: rows of tokens, and what conditions each of them.

Everything that runs a model goes through here: how a prompt enters is decided in `way` and
`inputs`, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from foreword.backbone.layout import Layout, Side
from foreword.backbone.prompts import cache
from foreword.backbone.prompts.carrying import ARGUMENT
from foreword.backbone.prompts.key_values import KeyValues, Past
from foreword.backbone.prompts.prompt import Prompt, chosen, joined
from foreword.backbone.shapes import Geometry


@dataclass
class _Encoded(BaseModelOutput):  # type: ignore[misc]
    """What an encoder made, for models that look for the choices of its experts there, too."""

    router_logits: Any = None


Way = tuple[str, int]
"""How the prompts of a call enter; calls of one way can be one call."""


@dataclass(frozen=True, eq=False)
class Call:
    """Rows of tokens with their prompts.

    Attributes:
        layout: for each row its tokens, mask and positions.
        prompt: what conditions the rows, each by the same prompt or by one of its own; or none.
    """

    layout: Layout
    prompt: Prompt | None = None

    @property
    def rows(self) -> int:
        """B."""
        return self.layout.rows

    def taken(self, rows: Tensor) -> Call:
        """Some rows, by their numbers `[N]`; without labels."""
        prompt = None if self.prompt is None else self.prompt.taken(rows)
        return Call(self.layout.taken(rows), prompt)

    def front(self) -> KeyValues | None:
        """Keys and values of virtual tokens before a decoder's row."""
        return None if self.prompt is None else self.prompt.sites.get("decoder")

    @staticmethod
    def choosing(
        layout: Layout, prompts: Sequence[Prompt], of: Sequence[int], vocabulary: int
    ) -> Call:
        """Rows of which each has one of several prompts that enter alike.

        Args:
            layout: the rows, as they would be with the first prompt.
            prompts: as many virtual tokens in each.
            of: the number of each row's prompt.
            vocabulary: the id of the first virtual token that has a column.
        """
        prompt, each = chosen(prompts, of)
        by = each * torch.tensor(of, device=layout.input_ids.device)[:, None]
        return Call(layout.with_ids_moved(vocabulary, by) if each else layout, prompt)

    @staticmethod
    def joined(calls: Sequence[Call], vocabulary: int, side: Side = "right") -> Call:
        """The rows of several calls of one way, one after the other.

        Args:
            calls: on one device.
            vocabulary: the id of the first virtual token that has a column.
            side: where rows are padded to the widest.
        """
        if len(calls) == 1:
            return calls[0]
        layouts, before = [], 0
        for call in calls:
            layouts.append(call.layout.with_ids_moved(vocabulary, before))
            rows = None if call.prompt is None else call.prompt.embeddings
            before += 0 if rows is None else len(rows)
        prompt = joined([(call.prompt, call.rows) for call in calls])
        return Call(Layout.joined(layouts, side), prompt)


def way(geometry: Geometry, call: Call) -> Way:
    """How the prompts of a call enter.

    - "attention": through the attention function, whichever prompt a row has;
    - "cache": as what a decoder's cache holds already, for families without such a function;
    - "between": virtual tokens stand after a first part of the row, which is read before;
    - "start": the decoder of an encoder-decoder counts its positions from its cache, so all rows
      have as many virtual tokens there.
    """
    if call.layout.before is not None:
        return "between", 0
    front = call.front()
    if call.layout.source is not None and call.layout.shifted and front is not None:
        return "start", front.length
    return ("attention" if geometry.through == "interface" else "cache"), 0


def inputs(
    model: PreTrainedModel, geometry: Geometry, call: Call, past: Past = ()
) -> dict[str, Any]:
    """The arguments of one forward pass without a cache that outlives it.

    Args:
        model: whose they are.
        geometry: the model's.
        call: what is read.
        past: what the model made of the part before the virtual tokens, where there is one.
    """
    g, layout, prompt = geometry, call.layout, call.prompt
    mask = layout.attention_mask
    if g.through == "nothing":  # which may count it, or multiply by it
        mask = mask.long()
    given: dict[str, Any] = {"input_ids": layout.input_ids, "attention_mask": mask}
    if g.kind != "encoder":
        given["use_cache"] = False
    if g.takes_positions:
        given["position_ids"] = layout.position_ids
    if layout.segments is not None:
        given["token_type_ids"] = layout.segments
    if layout.source is not None:
        encoded = None if prompt is None else prompt.encoded
        read: dict[str, Any] = {"input_ids": layout.source.input_ids}
        if encoded is not None:
            read = {"encoder_outputs": _Encoded(last_hidden_state=cast(Any, encoded))}
        given = {
            **read,
            "attention_mask": layout.source.attention_mask,
            "decoder_input_ids": layout.input_ids,
            "decoder_attention_mask": mask,
            "use_cache": False,
        }
    kind, _ = way(g, call)
    front = call.front()
    if kind == "between":
        cached, carried = in_the_midst(g, call)
        own = cache.read_only(model, cached, rows=layout.rows, past=past)
        given |= {"past_key_values": own, "use_cache": True}
        given["attention_mask"] = whole_mask(call, virtual=carried is None)
        if carried is not None:
            given[ARGUMENT] = carried
    elif kind == "start":
        own = cache.read_only(model, front, rows=layout.rows)
        given["past_key_values"] = cache.empty(own)
        given["decoder_attention_mask"] = whole_mask(call)
    elif kind == "cache" and front is not None:
        own = cache.read_only(model, front, rows=layout.rows)
        given |= {"past_key_values": own, "use_cache": True}
        given["attention_mask"] = whole_mask(call)
    elif kind == "attention" and prompt is not None:
        given[ARGUMENT] = prompt
    return given


def in_the_midst(geometry: Geometry, call: Call) -> tuple[KeyValues | None, Prompt | None]:
    """A prompt between two parts of a row: what of it lies in the cache after the first one, and
    what goes through the attention interface where the cache has no place for it. An attention does
    not mind the order of its keys, which hold their positions."""
    front = call.front()
    if front is None or geometry.caches_heads:
        return front, None
    return None, call.prompt


def whole_mask(call: Call, *, virtual: bool = True) -> Tensor:
    """Which columns hold tokens: of what is before the virtual tokens, of these, and of the rest,
    `[B, S + P + T]` bool.

    Args:
        call: the rows.
        virtual: whether virtual tokens have columns, which they have in a cache.
    """
    mask, front, before = call.layout.attention_mask, call.front(), call.layout.before
    parts = [] if before is None else [before.attention_mask]
    if front is not None and virtual:
        parts.append(front.seen(call.rows, mask.device))
    return torch.cat([*parts, mask], dim=1)


def columns_of(call: Call, answer: int) -> int:
    """The positions that the longest row of a call may need, with an answer of so many tokens."""
    layout, front = call.layout, call.front()
    before = 0 if layout.before is None else layout.before.input_ids.shape[1]
    virtual = 0 if front is None else front.length
    source = 0 if layout.source is None else layout.source.input_ids.shape[1]
    return before + virtual + source + layout.input_ids.shape[1] + answer
