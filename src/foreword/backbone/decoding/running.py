"""Rows of a decoder that are written together, each with a prompt and a length of its own.

Keys and values stand in slots (`slots.py`), which the attention function reads and writes itself: a
row enters and leaves at any step, and virtual tokens were copied into its slot when it entered, so
that no step pays for them again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from foreword.backbone.call import Call, way, whole_mask
from foreword.backbone.decoding.choosing import Row
from foreword.backbone.decoding.slots import Held, Slots
from foreword.backbone.model import Backbone
from foreword.backbone.prompts import cache
from foreword.backbone.prompts.carrying import ARGUMENT
from foreword.backbone.prompts.key_values import KeyValues, RowKeyValues, join_rows
from foreword.backbone.prompts.prompt import Place, Prompt


class Running:
    """Rows in slots.

    Args:
        backbone: a decoder whose attention goes through the interface.
        rows: how many slots there are.
        columns: how many positions each has.

    Attributes:
        rows: the state of each answer, in the order of the slots.
        logits: `[rows, vocabulary]`, what comes next.
    """

    def __init__(self, backbone: Backbone, rows: int, columns: int) -> None:
        self.backbone = backbone
        self.slots = Slots(rows, columns)
        self.rows: list[Row] = []
        self.logits = torch.empty(0)
        self._positions = torch.empty(0, dtype=torch.long)
        self._apart: KeyValues | None = None

    def enter(self, call: Call, rows: Sequence[Row]) -> None:
        """Read the sources of new rows, whose answers come next."""
        first = len(self.slots.held)
        mask = whole_mask(call)
        if way(self.backbone.geometry, call)[0] != "between":
            filling = _Filling(self.slots, call, first, mask)
            logits = self.backbone.next_logits(replace(call, prompt=filling))
            held = filling.held()
        else:
            logits, held = self._after_a_part(call, first, mask)
        self.slots.held += held
        last = _last(call.layout.attention_mask)
        after = call.layout.position_ids.gather(1, last[:, None])[:, 0] + 1
        apart = _apart(call.front())
        if self.rows:
            self.logits = torch.cat([self.logits, logits])
            self._positions = torch.cat([self._positions, after])
        else:
            self.logits, self._positions = logits, after
        if apart is not None or self._apart is not None:
            self._apart = join_rows([(self._apart, len(self.rows)), (apart, len(rows))])
        self.rows += rows

    def _after_a_part(self, call: Call, first: int, mask: Tensor) -> tuple[Tensor, list[Held]]:
        """Rows of which a part stands before the virtual tokens."""
        assert call.layout.before is not None
        front, backbone = call.front(), self.backbone
        prompt = call.prompt or Prompt()
        prompt.past = backbone.past(call)
        filled = cache.fill(backbone.model, front, rows=call.rows, past=prompt.past)
        logits = backbone.next_logits(Call(call.layout, prompt), past_key_values=filled)
        columns = _columns(mask, self.slots.columns)
        at = torch.arange(first, first + call.rows)
        for number, layer in enumerate(filled.layers):
            self.slots.put(number, layer.keys, layer.values, at, columns)
        begins = call.layout.before.attention_mask.sum(1).tolist()
        width = 0 if front is None else front.length
        ends = mask.sum(1).tolist()
        return logits, [Held(end, width, at) for end, at in zip(ends, begins, strict=True)]

    def keep(self, rows: Sequence[int]) -> None:
        """Let all rows go but some."""
        if len(rows) == len(self.rows):
            return
        order = self.slots.keep(rows)
        self.rows = [self.rows[row] for row in order]
        at = torch.tensor(order, dtype=torch.long, device=self._positions.device)
        self.logits, self._positions = self.logits[at.to(self.logits.device)], self._positions[at]
        self._apart = None if self._apart is None else self._apart.taken(at)

    def forward(self) -> None:
        """Read the last token that each row has written."""
        ids = torch.tensor([[row.new[-1]] for row in self.rows], device=self._positions.device)
        stepping = Stepping(self.slots, self.backbone, self._apart)
        given: dict[str, Any] = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "position_ids": self._positions[:, None],
            "use_cache": False,
            ARGUMENT: stepping,
        }
        with self.backbone.turn:
            self.logits = self.backbone.model(**given).logits[:, -1]
        for held in self.slots.held:
            held.end += 1
        self._positions = self._positions + 1


class _Filling(Prompt):
    """A prompt that also keeps all keys and values of its rows in slots."""

    def __init__(self, slots: Slots, call: Call, first: int, mask: Tensor) -> None:
        prompt = call.prompt
        super().__init__(
            {} if prompt is None else prompt.sites,
            None if prompt is None else prompt.embeddings,
        )
        self.slots, self.call = slots, call
        self.layers: set[int] = set()
        self.rows = torch.arange(first, first + call.rows)
        self.front = _shared(call.front())
        own = call.layout.attention_mask
        self.mask = own if self.front is None else mask
        self.columns = _columns(self.mask, slots.columns)

    def enter(
        self,
        place: Place,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Any,
        bias: Tensor | None,
        given: Mapping[str, Any],
    ) -> tuple[Tensor, Tensor, Any, Tensor | None]:
        """As any prompt; what it gives is kept."""
        own = key.shape[2]
        key, value, mask, bias = super().enter(place, query, key, value, mask, bias, given)
        self.layers.add(place.layer)
        columns = self.columns if key.shape[2] > own else self.columns[:, -own:]
        self.slots.put(place.layer, key, value, self.rows, columns)
        return key, value, mask, bias

    def held(self) -> list[Held]:
        """What the slots hold of each row."""
        ends = self.mask.sum(1).tolist()
        if self.front is None:
            return [Held(end) for end in ends]
        of = self.front.of.tolist() if isinstance(self.front, RowKeyValues) else [0] * len(ends)
        found = []
        for end, number in zip(ends, of, strict=True):
            member = None if number < 0 else self.front.prompts[number]
            if member is None or member.gates is not None:
                found.append(Held(end))
            else:
                found.append(
                    Held(end, member.length, hidden=frozenset(self.layers - set(member.layers)))
                )
        return found


class Stepping(Prompt):
    """One token more for each row in slots.

    Args:
        slots: hold what rows have read.
        backbone: says which layers see a window alone.
        apart: virtual tokens with a softmax of their own, row by row.
    """

    def __init__(self, slots: Slots, backbone: Backbone, apart: KeyValues | None) -> None:
        super().__init__({} if apart is None else {"decoder": apart})
        self.slots, self.windows = slots, backbone.windows
        self.additive = backbone.attention == "flex"
        self.longest = slots.longest + 1
        ends = [held.end for held in slots.held]
        self.ends = torch.tensor(ends)
        self.every = torch.arange(len(ends))
        self.even = len(set(ends)) == 1
        self._hidden: dict[tuple[Any, ...], Tensor | None] = {}

    def enter(
        self,
        place: Place,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Any,  # noqa: ARG002
        bias: Tensor | None,
        given: Mapping[str, Any],  # noqa: ARG002
    ) -> tuple[Tensor, Tensor, Any, Tensor | None]:
        """All that rows have read, and the new token."""
        assert bias is None, "decoders that count positions from a cache are decoded with it"
        rows = len(self.slots.held)
        found = []
        ends, every = self.ends.to(key.device), self.every.to(key.device)
        for kept, new in zip(
            self.slots.layer(place.layer, (key, value)), (key, value), strict=True
        ):
            if self.even:
                kept[:rows, :, self.longest - 1] = new[:, :, 0].to(kept.dtype)
            else:
                kept[every, :, ends] = new[:, :, 0].to(kept.dtype)
            found.append(kept[:rows, :, : self.longest].to(query.dtype))
        return found[0], found[1], self._mask(place.layer, query), None

    def _mask(self, layer: int, query: Tensor) -> Tensor | None:
        """Which columns each row sees: `[rows, 1, 1, columns]`; None: all."""
        window = self.windows[layer] if self.windows else None
        idle = tuple(layer in held.hidden for held in self.slots.held)
        key = (window, idle if any(idle) else ())
        if key not in self._hidden:
            self._hidden[key] = self._made(window, idle, query)
        return self._hidden[key]

    def _made(self, window: int | None, idle: Sequence[bool], query: Tensor) -> Tensor | None:
        if window is not None and self.longest <= window:
            window = None
        if self.even and window is None and not any(idle):
            return None
        columns = torch.arange(self.longest)
        seen = columns <= self.ends[:, None]
        held = self.slots.held
        at = torch.tensor([h.at for h in held])[:, None]
        front = torch.tensor([h.front for h in held])[:, None]
        virtual = (columns >= at) & (columns < at + front)
        if window is not None:
            # Virtual tokens are seen always, and take no place in the window of what is before them
            place = columns - torch.where(columns >= at + front, front, 0)
            last = self.ends[:, None] - front
            seen &= virtual | (place > last - window)
        if any(idle):
            seen &= ~(virtual & torch.tensor(idle)[:, None])
        seen = seen[:, None, None].to(query.device)
        if not self.additive:
            return seen
        lowest = torch.finfo(query.dtype).min
        return torch.zeros_like(seen, dtype=query.dtype).masked_fill(~seen, lowest)


def _columns(mask: Tensor, nowhere: int) -> Tensor:
    """Where the tokens of rows `[N, C]` stand one after the other; `nowhere` for all else."""
    at = mask.long().cumsum(1) - 1
    return torch.where(mask, at, nowhere)


def _last(mask: Tensor) -> Tensor:
    """The column of each row's last token: `[N]`."""
    return mask.shape[1] - 1 - mask.long().flip(1).argmax(1)


def _shared(tokens: KeyValues | None) -> KeyValues | None:
    """Virtual tokens, where those of some row share its softmax."""
    if tokens is None or all(member.gates is not None for member in tokens.prompts):
        return None
    return tokens


def _apart(tokens: KeyValues | None) -> KeyValues | None:
    """Virtual tokens, where those of some row have a softmax of their own."""
    if tokens is None or all(member.gates is None for member in tokens.prompts):
        return None
    return tokens
