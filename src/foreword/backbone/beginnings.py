"""What rows of a batch begin with alike is read once: a passage under many questions, a question
under many answers, examples before every input.

In a causal decoder a token's keys and values depend on the virtual tokens and on what stands before
it, so those of a common beginning are the same in every row. They are read in one row for all, and
stand in front of the others' own tokens as a prompt does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from foreword.backbone.call import Call, inputs, way
from foreword.backbone.geometry import in_chunks
from foreword.backbone.layout import Layout
from foreword.backbone.leaving_out import saves
from foreword.backbone.model import Backbone
from foreword.backbone.prompts.key_values import Past, PromptKeyValues, RowKeyValues
from foreword.backbone.prompts.prompt import Prompt, stack

LEAST = 16
"""Tokens that rows must begin with alike to be worth a pass of their own."""
WORTH = 0.2
"""Share of a batch's tokens that must be saved."""


@dataclass(frozen=True)
class Group:
    """Rows that begin alike.

    Attributes:
        rows: their numbers.
        length: tokens of the beginning; 0 where a row stands alone.
    """

    rows: tuple[int, ...]
    length: int = 0

    @property
    def saved(self) -> int:
        """Tokens that need not be read."""
        return (len(self.rows) - 1) * self.length


def read_once(backbone: Backbone, call: Call, reading: Tensor) -> tuple[Call, Tensor]:
    """A call without what its rows begin with alike, which is read here.

    Args:
        backbone: reads.
        call: rows that are padded on the right.
        reading: flat positions `[N]` at which the rows will be read.

    Returns:
        A call that gives the same there, and the flat positions in it; the call as it is where
        gradients are wanted, where the rows have too little in common, and where a family or a
        prompt keeps no keys and values that another row could take.
    """
    if call.rows < 2 or torch.is_grad_enabled() or not saves("beginnings"):
        return call, reading
    if not _shareable(backbone, call):
        return call, reading
    layout, width = call.layout, call.layout.input_ids.shape[1]
    rows, columns = (reading // width).tolist(), (reading % width).tolist()
    most = layout.attention_mask.sum(1).sub(1).tolist()
    for row, column in zip(rows, columns, strict=True):
        most[row] = min(most[row], column)
    of, members = _prompts(call)
    groups = groups_of(_texts(layout), of, most)
    if sum(group.saved for group in groups) < WORTH * int(layout.attention_mask.sum()):
        return call, reading
    starts = [0] * call.rows
    for group in groups:
        for row in group.rows:
            starts[row] = group.length
    rest = _without(layout, starts)
    prompt = _with_beginnings(backbone, call, groups, of, members)
    narrow = rest.input_ids.shape[1]
    at = [row * narrow + column - starts[row] for row, column in zip(rows, columns, strict=True)]
    return Call(rest, prompt), torch.tensor(at, device=reading.device)


def groups_of(
    texts: Sequence[Sequence[int]], of: Sequence[int], most: Sequence[int]
) -> list[Group]:
    """Which rows are read together: those with one prompt whose common beginning saves the most.

    Args:
        texts: the tokens of each row.
        of: the number of each row's prompt.
        most: of each row, how many tokens its beginning may have.
    """
    order = sorted(range(len(texts)), key=lambda row: (of[row], texts[row]))
    groups: list[Group] = []
    members, length = [order[0]], most[order[0]]
    for last, row in pairwise(order):
        common = 0
        if of[last] == of[row]:
            common = min(length, most[row], _common(texts[last], texts[row]))
        if common >= LEAST and len(members) * common >= (len(members) - 1) * length:
            members, length = [*members, row], common
            continue
        groups.append(Group(tuple(members), length if len(members) > 1 else 0))
        members, length = [row], most[row]
    groups.append(Group(tuple(members), length if len(members) > 1 else 0))
    return groups


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two texts begin with alike."""
    for at, (token, its) in enumerate(zip(one, other, strict=False)):
        if token != its:
            return at
    return min(len(one), len(other))


def _shareable(backbone: Backbone, call: Call) -> bool:
    g, layout, prompt = backbone.geometry, call.layout, call.prompt
    if g.kind != "decoder" or g.through != "interface":
        return False
    if g.slides or not (g.takes_positions and g.caches_heads) or not _sees_all(backbone):
        return False
    if layout.segments is not None or not bool(layout.attention_mask[:, 0].all()):
        return False
    if way(g, call) != ("attention", 0):
        return False
    if prompt is None:
        return True
    if prompt.embeddings is not None or type(prompt) is not Prompt:
        return False
    front = call.front()
    return front is None or all(
        one.gates is None and not one.dropout and len(one.layers) == g.main.layers
        for one in front.prompts
    )


def _sees_all(backbone: Backbone) -> bool:
    """Whether every layer is an attention to all that stands before, and nothing else is handed on
    from token to token."""
    layers = DynamicCache(config=backbone.model.config).layers
    alike = all(type(layer) is DynamicLayer for layer in layers)
    return (
        alike
        and len(layers) in (0, backbone.geometry.main.layers)
        and not in_chunks(backbone.model)
    )


def _texts(layout: Layout) -> list[tuple[int, ...]]:
    ids, lengths = layout.input_ids.tolist(), layout.attention_mask.sum(1).tolist()
    return [tuple(row[:length]) for row, length in zip(ids, lengths, strict=True)]


def _prompts(call: Call) -> tuple[list[int], tuple[PromptKeyValues, ...]]:
    """The number of each row's prompt, -1 for none, and the prompts."""
    front = call.front()
    if front is None:
        return [-1] * call.rows, ()
    if isinstance(front, RowKeyValues):
        return front.of.tolist(), front.members
    return [0] * call.rows, front.prompts


def _without(layout: Layout, starts: Sequence[int]) -> Layout:
    """Rows without so many of their first tokens."""
    device, width = layout.input_ids.device, layout.input_ids.shape[1]
    first = torch.tensor(starts, device=device)[:, None]
    left = int((layout.attention_mask.sum(1) - first[:, 0]).max())
    at = (first + torch.arange(left, device=device)).clamp(max=width - 1)
    there = first + torch.arange(left, device=device) < layout.attention_mask.sum(1)[:, None]
    return Layout(
        layout.input_ids.gather(1, at),
        there,
        layout.position_ids.gather(1, at),
        layout.target_mask.gather(1, at) & there,
        layout.virtual,
    )


def _with_beginnings(
    backbone: Backbone,
    call: Call,
    groups: Sequence[Group],
    of: Sequence[int],
    members: Sequence[PromptKeyValues],
) -> Prompt:
    """Each row's virtual tokens, and behind them what its group begins with."""
    shared = [group for group in groups if group.length]
    pasts = _read(backbone, call, shared)
    fronts = [
        _joined(None if of[group.rows[0]] < 0 else members[of[group.rows[0]]], past)
        for group, past in zip(shared, pasts, strict=True)
    ]
    number_of = list(of)
    for number, group in enumerate(shared):
        for row in group.rows:
            number_of[row] = len(members) + number
    return Prompt({"decoder": RowKeyValues([*members, *fronts], torch.tensor(number_of))})


def _read(backbone: Backbone, call: Call, groups: Sequence[Group]) -> list[Past]:
    """Keys and values of each group's beginning: by layer `[1, kv_heads, S, …_dim]`."""
    first = torch.tensor([group.rows[0] for group in groups])
    whole = call.taken(first.to(call.layout.input_ids.device))
    longest = max(group.length for group in groups)
    ends = torch.tensor([group.length for group in groups], device=first.device)[:, None]
    laid = whole.layout
    here = torch.arange(longest) < ends
    layout = replace(
        laid,
        input_ids=laid.input_ids[:, :longest],
        attention_mask=here.to(laid.attention_mask.device),
        position_ids=laid.position_ids[:, :longest],
        target_mask=laid.target_mask[:, :longest],
        marks=None,
    )
    given = inputs(backbone.model, backbone.geometry, Call(layout, whole.prompt))
    given |= {"past_key_values": DynamicCache(), "use_cache": True}
    with backbone.turn:
        filled = backbone.model.base_model(**given).past_key_values
    return [
        tuple(
            (
                layer.keys[row : row + 1, :, : group.length],
                layer.values[row : row + 1, :, : group.length],
            )
            for layer in filled.layers
        )
        for row, group in enumerate(groups)
    ]


def _joined(member: PromptKeyValues | None, past: Past) -> PromptKeyValues:
    """Virtual tokens, and what stands behind them: `[layers, P + S, kv_heads, …_dim]`."""
    sides = []
    for number, name in enumerate(("keys", "values")):
        layers = []
        for layer, both in enumerate(past):
            own = both[number][0].transpose(0, 1)
            if member is not None:
                at = member.layers.index(layer)
                own = torch.cat([getattr(member, name)[at].to(own), own])
            layers.append(own)
        sides.append(stack(layers))
    return PromptKeyValues(sides[0], sides[1])
