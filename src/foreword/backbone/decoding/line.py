"""One forward pass over tokens of many rows that stand in one line, `[1, N]`.

All that a model does to each token by itself it does to the line; only its attention sees rows
apart. So the sources of new rows are read, whole or in parts, in the pass that writes the next
token of all others, and no token of it is padding (Yu et al. 2022, "Orca", section 3.2).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from foreword.backbone.call import Call, columns_of
from foreword.backbone.decoding.slots import Held, Slots
from foreword.backbone.model import Backbone
from foreword.backbone.prompts import merged
from foreword.backbone.prompts.key_values import KeyValues, PromptKeyValues, RowKeyValues
from foreword.backbone.prompts.prompt import Attend, Place, Prompt

Seen = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""From query, key, value and mask to what an attention gives: `[B, Q, heads, value_dim]`."""

Sharing = Sequence[tuple[Tensor | slice | None, PromptKeyValues]]
"""Virtual tokens with the rows that share them, by their numbers; none: all rows."""


@dataclass(eq=False)
class Source:
    """What a row is to read, and how much of it was read.

    Attributes:
        ids: its tokens; those from the vocabulary's size on are virtual.
        positions: their position ids.
        at: how many of them stand before the virtual tokens that have no ids: 0 but with an infix.
        front: those, where they share the softmax of the row's own keys and are copied before them.
        shared: those, where they share that softmax and are so many that rows share them.
        apart: those, where they have a softmax of their own.
        embeddings: `[n, width]` of the virtual tokens that have ids.
        read: how many tokens were read.
    """

    ids: list[int]
    positions: list[int]
    at: int = 0
    front: PromptKeyValues | None = None
    shared: PromptKeyValues | None = None
    apart: PromptKeyValues | None = None
    embeddings: Tensor | None = None
    read: int = 0

    @property
    def width(self) -> int:
        """Columns of virtual tokens."""
        return 0 if self.front is None else self.front.length

    @property
    def columns(self) -> int:
        """Columns of all that is read."""
        return len(self.ids) + self.width

    @property
    def left(self) -> int:
        """How many tokens are not read yet."""
        return len(self.ids) - self.read

    def held(self) -> Held:
        """What a slot holds when all is read."""
        layers = frozenset(() if self.front is None else self.front.layers)
        return Held(self.columns, self.positions[-1] + 1, self.width, self.at, layers)


class Part(ABC):
    """Some tokens of a line, and the rows they belong to.

    Attributes:
        ids, positions: of its tokens.
    """

    ids: list[int]
    positions: list[int]

    def __init__(self, backbone: Backbone) -> None:
        self.windows = backbone.windows
        self.additive = backbone.attention == "flex"
        self._masks: dict[tuple[Any, ...], Tensor | None] = {}

    @abstractmethod
    def attend(
        self,
        place: Place,
        attend: Seen,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scaling: float | None,
    ) -> Tensor:
        """Keep keys and values, and give what the tokens get of all that their rows have read.

        Args:
            place: which attention it is.
            attend: computes it.
            query: `[1, heads, n, key_dim]`.
            key, value: `[1, kv_heads, n, …_dim]`.
            scaling: of scores.

        Returns:
            `[1, n, heads, value_dim]`.
        """

    def window(self, layer: int, longest: int) -> int | None:
        """How many positions a layer sees; None: all of so many."""
        window = self.windows[layer] if self.windows else None
        return None if window is not None and longest <= window else window

    def finished(self, seen: Tensor, query: Tensor) -> Tensor:
        """A mask `[B, 1, Q, K]` bool as the attention function takes it."""
        seen = seen.to(query.device)
        if not self.additive:
            return seen
        lowest = torch.finfo(query.dtype).min
        return torch.zeros_like(seen, dtype=query.dtype).masked_fill(~seen, lowest)


class Steps(Part):
    """The last token of each row in slots.

    Args:
        backbone: says which layers see a window alone.
        slots: hold what rows have read.
        ids: the tokens.
        shared: virtual tokens that rows share, row by row.
        apart: virtual tokens with a softmax of their own, row by row.
    """

    def __init__(
        self,
        backbone: Backbone,
        slots: Slots,
        ids: Sequence[int],
        shared: RowKeyValues | None,
        apart: KeyValues | None,
    ) -> None:
        super().__init__(backbone)
        self.slots, self.apart = slots, apart
        self.sharing: Sharing = [] if shared is None else _by_member(shared)
        self.ids, self.positions = list(ids), [held.position for held in slots.held]
        ends = [held.end for held in slots.held]
        self.longest = max(ends) + 1
        self.ends = torch.tensor(ends)
        self.every = torch.arange(len(ends))
        self.even = len(set(ends)) == 1

    def attend(
        self,
        place: Place,
        attend: Seen,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scaling: float | None,
    ) -> Tensor:
        """As `Part.attend`; each row's token sees all of its row."""
        rows, query = len(self.ids), query[0].transpose(0, 1)[:, :, None]
        kept = self.slots.layer(place.layer, (key, value))
        seen = []
        ends, every = self.ends.to(key.device), self.every.to(key.device)
        for side, new in zip(kept, (key, value), strict=True):
            own = new[0].transpose(0, 1).to(side.dtype)
            if self.even:
                side[:rows, :, self.longest - 1] = own
            else:
                side[every, :, ends] = own
            seen.append(side[:rows, :, : self.longest].to(query.dtype))
        mask = self._mask(place.layer, query)
        attended = _attended(place, attend, query, seen, mask, scaling, self.sharing, self.apart)
        return attended.transpose(0, 1)

    def _mask(self, layer: int, query: Tensor) -> Tensor | None:
        """Which columns each row sees: `[rows, 1, 1, columns]`; None: all."""
        window = self.window(layer, self.longest)
        idle = tuple(held.idle(layer) for held in self.slots.held)
        key = (window, idle if any(idle) else ())
        if key not in self._masks:
            self._masks[key] = self._made(window, idle, query)
        return self._masks[key]

    def _made(self, window: int | None, idle: Sequence[bool], query: Tensor) -> Tensor | None:
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
        return self.finished(seen[:, None, None], query)


class Stretch(Part):
    """The next tokens of a source.

    Args:
        backbone: says which layers see a window alone.
        slots: where the row is kept.
        row: which one it is there.
        source: the row's.
        many: how many tokens.
    """

    def __init__(
        self, backbone: Backbone, slots: Slots, row: int, source: Source, many: int
    ) -> None:
        super().__init__(backbone)
        self.slots, self.row, self.source = slots, row, source
        self.first, self.last = source.read, source.read + many
        self.ids = source.ids[self.first : self.last]
        self.positions = source.positions[self.first : self.last]
        self.begin, self.end = self._column(self.first), self._column(self.last - 1) + 1
        self.parted = self.first < source.at < self.last

    def _column(self, token: int) -> int:
        return token + (self.source.width if token >= self.source.at else 0)

    def attend(
        self,
        place: Place,
        attend: Seen,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scaling: float | None,
    ) -> Tensor:
        """As `Part.attend`; each token sees what is before it in its row."""
        source = self.source
        front = None if source.front is None else source.front.front(place.layer)
        seen = []
        for number, (side, new) in enumerate(
            zip(self.slots.layer(place.layer, (key, value)), (key, value), strict=True)
        ):
            row = side[self.row]
            if self.first <= source.at < self.last and source.width:
                virtual = row[:, source.at : source.at + source.width]
                if front is None:
                    virtual.zero_()
                else:
                    virtual.copy_(front.of_rows(1, side.dtype)[number][0])
            split = source.at - self.first if self.parted else 0
            row[:, self.begin : self.begin + split] = new[0, :, :split].to(side.dtype)
            row[:, self.end - len(self.ids) + split : self.end] = new[0, :, split:].to(side.dtype)
            seen.append(row[None, :, : self.end].to(query.dtype))
        mask = self._mask(place.layer, query)
        sharing: Sharing = [] if source.shared is None else [(None, source.shared)]
        return _attended(place, attend, query, seen, mask, scaling, sharing, source.apart)

    def _mask(self, layer: int, query: Tensor) -> Tensor | None:
        """Which columns each token sees: `[1, 1, tokens, columns]`; None: those up to its own."""
        window = self.window(layer, self.end)
        front = self.source.front
        idle = front is not None and layer not in front.layers
        if (window, idle) not in self._masks:
            self._masks[window, idle] = self._made(window, idle, query)
        return self._masks[window, idle]

    def _made(self, window: int | None, idle: bool, query: Tensor) -> Tensor | None:
        if self.end == len(self.ids) and window is None and not self.additive:
            return None
        columns = torch.arange(self.end)
        own = torch.tensor([self._column(token) for token in range(self.first, self.last)])[:, None]
        seen = columns <= own
        at, width = self.source.at, self.source.width
        virtual = (columns >= at) & (columns < at + width)
        if window is not None:
            place = columns - torch.where(columns >= at + width, width, 0)
            last = own - torch.where(own >= at + width, width, 0)
            seen &= virtual | (place > last - window)
        if idle:
            seen &= ~virtual
        return self.finished(seen[None, None], query)


def _attended(
    place: Place,
    attend: Seen,
    query: Tensor,
    seen: Sequence[Tensor],
    mask: Tensor | None,
    scaling: float | None,
    sharing: Sharing,
    apart: KeyValues | None,
) -> Tensor:
    """What queries get of the keys and values `seen` in slots, of virtual tokens that rows share,
    and of those with a softmax of their own: `[B, Q, heads, value_dim]`."""
    key, value = seen
    fronts = [
        (rows, front)
        for rows, tokens in sharing
        if (front := tokens.front(place.layer)) is not None
    ]
    if fronts:
        output = merged.written(query, key, value, mask, scaling, fronts)
    else:
        output = attend(query, key, value, mask)
    own = None if apart is None else apart.apart(place.layer)
    return output if own is None else output + own.attended(query, scaling).to(output)


class Line(Prompt):
    """What a pass brings to the attention functions.

    Args:
        parts: in the order of their tokens.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        super().__init__()
        self.parts = tuple(parts)

    def attend(
        self,
        inner: Attend,
        module: torch.nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Any,  # noqa: ARG002
        **given: Any,
    ) -> tuple[Tensor, Any]:
        """As any prompt; see `Prompt.attend`."""
        bias = given.pop("position_bias", None)
        assert bias is None, "decoders that count positions from a cache are decoded with it"
        place = self._place(module)
        self.reached.add(place)

        def attend(query: Tensor, key: Tensor, value: Tensor, mask: Any) -> Tensor:
            output: Tensor = inner(module, query, key, value, mask, **given)[0]
            return output

        outputs, begin = [], 0
        for part in self.parts:
            end = begin + len(part.ids)
            query_, key_, value_ = (side[:, :, begin:end] for side in (query, key, value))
            outputs.append(part.attend(place, attend, query_, key_, value_, given.get("scaling")))
            begin = end
        return torch.cat(outputs, dim=1) if len(outputs) > 1 else outputs[0], None


def sources_of(backbone: Backbone, call: Call) -> list[Source]:
    """What each row of a decoder's call is to read.

    Args:
        backbone: reads it.
        call: rows with their prompts, padded on any side.
    """
    layout, prompt, vocabulary = call.layout, call.prompt, backbone.geometry.vocabulary
    members = _members(call.front(), layout.rows)
    parts = [part for part in (layout.before, layout) if part is not None]
    kept = [
        [
            (ids[mask].tolist(), positions[mask].tolist())
            for ids, positions, mask in zip(
                part.input_ids, part.position_ids, part.attention_mask, strict=True
            )
        ]
        for part in parts
    ]
    sources = []
    for own, member in zip(zip(*kept, strict=True), members, strict=True):
        ids = [token for part, _ in own for token in part]
        shared = member is not None and layout.before is None and shares(backbone, member)
        front = member is not None and member.gates is None and not shared
        virtual = any(token >= vocabulary for token in ids)
        sources.append(
            Source(
                ids,
                [position for _, part in own for position in part],
                len(own[0][0]) if len(own) > 1 else 0,
                member if front else None,
                member.shared(backbone.model.dtype) if member is not None and shared else None,
                None if front or shared else member,
                prompt.embeddings if virtual and prompt is not None else None,
            )
        )
    return sources


def shares(backbone: Backbone, member: PromptKeyValues) -> bool:
    """Whether rows that are written step by step share these virtual tokens before their text, so
    that no row has a copy of them: where attention is torch's own."""
    here = backbone.steps_by_attention and backbone.device.type == "cpu"
    return here and backbone.attention == "sdpa" and merged.is_shared(member)


def kept_columns(backbone: Backbone, call: Call, answer: int) -> int:
    """The positions that the longest row of a call keeps while an answer of so many tokens is
    written: `columns_of` without virtual tokens that rows share."""
    front, columns = call.front(), columns_of(call, answer)
    if front is None:
        return columns
    whole = call.layout.before is None
    lengths = [0 if whole and shares(backbone, one) else one.length for one in front.prompts]
    return columns - front.length + max(lengths, default=0)


def _by_member(shared: RowKeyValues) -> Sharing:
    """Prompts with the rows that have them."""
    rows: dict[int, list[int]] = {}
    for row, number in enumerate(shared.of.tolist()):
        rows.setdefault(number, []).append(row)
    rows.pop(-1, None)
    return [(_numbers(own, len(shared.of)), shared.members[number]) for number, own in rows.items()]


def _numbers(rows: Sequence[int], all_: int) -> Tensor | slice | None:
    """Rows as an index, without a copy where they stand side by side; none: all of so many."""
    if len(rows) == all_:
        return None
    if rows[-1] - rows[0] + 1 == len(rows):
        return slice(rows[0], rows[-1] + 1)
    return torch.tensor(rows)


def _members(tokens: KeyValues | None, rows: int) -> Sequence[PromptKeyValues | None]:
    """The prompt that each row has."""
    if tokens is None:
        return [None] * rows
    if isinstance(tokens, RowKeyValues):
        return [None if number < 0 else tokens.members[number] for number in tokens.of.tolist()]
    assert isinstance(tokens, PromptKeyValues), "there are no others"
    return [tokens] * rows
