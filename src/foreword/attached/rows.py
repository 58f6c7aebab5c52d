"""Padded rows of tokens as transformers' loops have them, laid out as foreword has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from foreword.axes.placement import Prefix
from foreword.backbone.layout import Layout
from foreword.errors import UserError

IGNORED = -100
"""The label of a position that is not predicted, as torch and transformers have it."""


@dataclass(frozen=True, eq=False)
class Rows:
    """A batch with the columns that virtual tokens take in it.

    Attributes:
        layout: what is run, `[B, C + T]` for C virtual tokens with columns.
        real: `[B, T]`, where the columns of the batch lie in it; None where none were added.
    """

    layout: Layout
    real: Tensor | None = None

    def labels(self, labels: Tensor) -> Tensor:
        """Labels `[B, T]` of the batch's columns as labels `[B, C + T]`."""
        if self.real is None:
            return labels
        wide = labels.new_full(self.layout.input_ids.shape, IGNORED)
        return wide.scatter(1, self.real.to(labels.device), labels)

    def taken(self, states: Tensor) -> Tensor:
        """What the model gave for the batch's own columns: `[B, T, …]`."""
        if self.real is None:
            return states
        real = self.real.to(states.device)
        if not bool((real != real[:1]).any()):
            return states[:, real[0]]
        at = real.view(*real.shape, *[1] * (states.ndim - 2))
        return states.gather(1, at.expand(-1, -1, *states.shape[2:]))


def lay_out(
    place: Prefix,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    *,
    columns: Sequence[int] = (),
    first_position: int = 0,
    position_ids: Tensor | None = None,
    segments: Tensor | None = None,
    source: Layout | None = None,
    name: str = "input_ids",
) -> Rows:
    """A batch with its virtual tokens right before each row's first real token.

    Args:
        place: where virtual tokens stand, and the rule for positions.
        input_ids: `[B, T]`; padding may be on either side.
        attention_mask: `[B, T]`, 1 at real tokens; all are if not given.
        columns: the ids of virtual tokens that stand in this input.
        first_position: the id of the model's first position.
        position_ids: `[B, T]`, of a row without any prompt; counted by the mask if not given.
        segments: `[B, T]`, the text that a token belongs to.
        source: what the encoder reads, where these are a decoder's rows.
        name: what the rows are called in messages.

    Raises:
        UserError: the mask has another shape, a row holds several texts, or a token has no row in
            the vocabulary.
    """
    mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    if mask.shape != input_ids.shape:
        mask_name = name.replace("input_ids", "attention_mask")
        raise UserError(
            f"{mask_name}: has the shape {list(mask.shape)}, expected that of {name}, "
            f"{list(input_ids.shape)}; a prompt makes wider masks by itself"
        )
    mask = mask.bool()
    virtual = 0 if place.columns else place.outside
    shift = place.positions == "shift"
    if position_ids is None:
        position_ids = (mask.long().cumsum(1) - 1).clamp(min=0) + first_position
    else:
        _refuse_several_texts(position_ids, mask)
    before = virtual + len(columns) if shift else 0
    layout = Layout(
        input_ids,
        mask,
        position_ids + before,
        torch.zeros_like(mask),
        virtual,
        source=source,
        segments=segments,
    )
    if not columns:
        return Rows(layout)
    if int(input_ids.max()) >= columns[0]:
        raise UserError(f"{name}: {int(input_ids.max())} is no token of the vocabulary")
    places = range(len(columns)) if shift else [0] * len(columns)
    return _with_columns(layout, columns, [first_position + place for place in places])


def _refuse_several_texts(position_ids: Tensor, mask: Tensor) -> None:
    both = mask[:, 1:] & mask[:, :-1]
    if bool(((position_ids[:, 1:] <= position_ids[:, :-1]) & both).any()):
        raise UserError(
            "position_ids: begin anew within a row, so the row holds several texts, but a prompt "
            "stands before the first of them alone; give a row for each text "
            "(SFTConfig(packing=False, padding_free=False))"
        )


def _with_columns(layout: Layout, columns: Sequence[int], places: Sequence[int]) -> Rows:
    """The same rows with the ids of virtual tokens, at their positions, before the first token."""
    ids, mask = layout.input_ids, layout.attention_mask
    (rows, width), count, device = ids.shape, len(columns), ids.device
    start = mask.long().argmax(1)[:, None]
    at = torch.arange(width, device=device)[None].expand(rows, -1)
    real = torch.where(at >= start, at + count, at)
    new = torch.arange(count, device=device)[None] + start

    def filled(own: Tensor, added: Sequence[int]) -> Tensor:
        wide = own.new_zeros(rows, width + count)
        virtual = torch.tensor(added, device=device).to(own.dtype)[None].expand(rows, -1)
        return wide.scatter(1, real, own).scatter(1, new, virtual)

    segments = layout.segments
    laid = Layout(
        filled(ids, columns),
        filled(mask, [1] * count),
        filled(layout.position_ids, places),
        filled(layout.target_mask, [0] * count),
        layout.virtual,
        source=layout.source,
        segments=None if segments is None else filled(segments, [0] * count),
    )
    return Rows(laid, real)
