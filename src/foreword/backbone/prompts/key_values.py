"""Keys and values of virtual tokens, for rows that share them or have each their own.

Virtual tokens stand before a row's own keys and take part in its softmax (`Front`), or they have a
softmax of their own whose outcome is added to the row's, each head weighted by a gate (`Apart`;
LLaMA-Adapter, Zhang et al. 2023, section 3.2).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Past = tuple[tuple[Tensor, Tensor], ...]
"""What rows have read: by layer, keys and values `[B, kv_heads, S, …_dim]` as a cache holds them;
latent attention has another number there for keys than for values."""
Sides = Tensor | tuple[Tensor, ...]
"""Keys, or values, of virtual tokens: `[layers, P, kv_heads, …_dim]`; or layer by layer, where the
layers differ in their heads."""


@dataclass(frozen=True, eq=False)
class Front:
    """Virtual tokens of one layer that share the softmax of a row's own keys.

    Attributes:
        keys: `[B or 1, kv_heads, P, key_dim]`.
        values: `[B or 1, kv_heads, P, value_dim]`.
        seen: `[B, P]` bool, which of them a row has; None: each row has all.
        dropout: on keys and values, drawn for each row.
    """

    keys: Tensor
    values: Tensor
    seen: Tensor | None = None
    dropout: float = 0.0

    @property
    def length(self) -> int:
        """P."""
        return self.keys.shape[2]

    def before(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """A layer's own keys and values `[B, kv_heads, T, …_dim]` with these in front."""
        return self._join(self.keys, key), self._join(self.values, value)

    def _join(self, front: Tensor, own: Tensor) -> Tensor:
        rows = front.to(device=own.device, dtype=own.dtype).expand(own.shape[0], -1, -1, -1)
        return torch.cat([self._dropped(rows), own], dim=2)

    def _dropped(self, rows: Tensor) -> Tensor:
        return nn.functional.dropout(rows, self.dropout) if self.dropout else rows

    def of_rows(self, rows: int, like: torch.dtype) -> tuple[Tensor, Tensor]:
        """Keys and values of so many rows, a multiple of B, in memory of their own."""
        key, value = (
            self._dropped(side.to(like).repeat_interleave(rows // side.shape[0], 0)).contiguous()
            for side in (self.keys, self.values)
        )
        return key, value


@dataclass(frozen=True, eq=False)
class Apart:
    """Virtual tokens of one layer with a softmax of their own.

    Attributes:
        keys, values, seen: as in `Front`.
        gates: `[B or 1, heads]`, the weight of what is added.
    """

    keys: Tensor
    values: Tensor
    gates: Tensor
    seen: Tensor | None = None

    def attended(self, query: Tensor, scaling: float | None) -> Tensor:
        """What `[B, heads, Q, key_dim]` queries get of them: `[B, Q, heads, value_dim]`."""
        wide = torch.promote_types(query.dtype, torch.float32)
        groups = query.shape[1] // self.keys.shape[1]
        keys, values = (
            side.to(device=query.device, dtype=wide).repeat_interleave(groups, 1)
            for side in (self.keys, self.values)
        )
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        scores = query.to(wide) @ keys.transpose(2, 3) * scale
        if self.seen is not None:
            hidden = ~self.seen.to(query.device)[:, None, None]
            scores = scores.masked_fill(hidden, torch.finfo(wide).min)
        gates = self.gates.to(device=query.device, dtype=wide)[:, :, None, None]
        return (scores.softmax(-1) * gates @ values).transpose(1, 2)


class KeyValues(ABC):
    """Keys and values of virtual tokens at the layers of one site."""

    length: int
    """P: of the longest row."""

    @property
    @abstractmethod
    def layers(self) -> tuple[int, ...]:
        """The layers where some row has virtual tokens, in their order."""

    @property
    @abstractmethod
    def prompts(self) -> tuple[PromptKeyValues, ...]:
        """Those of every prompt that some row has."""

    @abstractmethod
    def front(self, layer: int) -> Front | None:
        """Those of a layer that share the softmax of the row's own keys."""

    @abstractmethod
    def apart(self, layer: int) -> Apart | None:
        """Those of a layer that have a softmax of their own."""

    @abstractmethod
    def taken(self, rows: Tensor) -> KeyValues:
        """Those of some rows, by their numbers `[N]`."""

    @abstractmethod
    def repeated(self, times: int) -> KeyValues:
        """Those of every row so many times, one after the other."""

    def covers(self, layer: int) -> bool:
        """Whether a layer has virtual tokens."""
        return layer in self.layers

    @abstractmethod
    def seen(self, rows: int, device: torch.device) -> Tensor:
        """Which of the P columns in front of each row hold a virtual token that shares the row's
        softmax, in some layer: `[rows, P]` bool."""


class PromptKeyValues(KeyValues):
    """The same P virtual tokens for every row.

    Attributes:
        keys: `[layers, P, kv_heads, key_dim]`, as the layer's own keys are after any rotation;
            layer by layer `[P, kv_heads, key_dim]`, where the layers differ in their heads.
        values: the same with `value_dim`.
        gates: `[layers, heads]` where they have a softmax of their own, whose outcome is added with
            these weights; None where they share the softmax of the row's own keys.
        dropout: on keys and values, drawn for each row of a batch and each layer.
    """

    _shared: PromptKeyValues | None = None

    def __init__(
        self,
        keys: Sides,
        values: Sides,
        layers: Sequence[int] = (),
        gates: Tensor | None = None,
        dropout: float = 0.0,
    ) -> None:
        """Args as the attributes; `layers`: which layers they are for, in their order; all from
        the first if not given."""
        self.keys, self.values, self.gates, self.dropout = keys, values, gates, dropout
        self._layers = tuple(layers) or tuple(range(len(keys)))
        self._index = {layer: i for i, layer in enumerate(self._layers)}
        self.length = keys[0].shape[0]

    @property
    def layers(self) -> tuple[int, ...]:
        """Which layers they are for."""
        return self._layers

    @property
    def prompts(self) -> tuple[PromptKeyValues, ...]:
        """These."""
        return (self,)

    def shared(self, dtype: torch.dtype) -> PromptKeyValues:
        """The same for rows that share them: in a type, those of a layer's head side by side in
        memory. They are made once."""
        if self._shared is None or self._shared.keys[0].dtype != dtype:
            keys, values = (
                tuple(one.detach().to(dtype).transpose(0, 1).contiguous() for one in side)
                for side in (self.keys, self.values)
            )
            self._shared = PromptKeyValues(
                tuple(one.transpose(0, 1) for one in keys),
                tuple(one.transpose(0, 1) for one in values),
                self.layers,
            )
        return self._shared

    def covers(self, layer: int) -> bool:
        """Whether a layer has virtual tokens."""
        return layer in self._index

    def front(self, layer: int) -> Front | None:
        """Those of a layer, where they share the softmax of the row's own keys."""
        at = self._index.get(layer)
        if at is None or self.gates is not None:
            return None
        keys, values = (side[at].transpose(0, 1)[None] for side in (self.keys, self.values))
        return Front(keys, values, dropout=self.dropout)

    def apart(self, layer: int) -> Apart | None:
        """Those of a layer, where they have a softmax of their own."""
        at = self._index.get(layer)
        if at is None or self.gates is None:
            return None
        return Apart(
            self.keys[at].transpose(0, 1)[None],
            self.values[at].transpose(0, 1)[None],
            self.gates[at][None],
        )

    def seen(self, rows: int, device: torch.device) -> Tensor:
        """All of them, or none."""
        there = self.gates is None
        return torch.full((rows, self.length), there, dtype=torch.bool, device=device)

    def taken(self, rows: Tensor) -> KeyValues:  # noqa: ARG002
        """The same."""
        return self

    def repeated(self, times: int) -> KeyValues:  # noqa: ARG002
        """The same."""
        return self


class RowKeyValues(KeyValues):
    """Each row has the virtual tokens of one of several prompts, or none.

    Args:
        members: the prompts.
        of: `[B]`, which of them a row has; -1 for none.
    """

    def __init__(self, members: Sequence[PromptKeyValues], of: Tensor) -> None:
        self.members, self.of = tuple(members), of
        self.length = max((member.length for member in members), default=0)
        self._layers = tuple(sorted({layer for member in members for layer in member.layers}))
        self._fronts: dict[int, Front | None] = {}
        self._seen: dict[tuple[bool, ...], Tensor] = {}
        self._whole: dict[tuple[bool, ...], bool] = {}

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers of all members."""
        return self._layers

    @property
    def prompts(self) -> tuple[PromptKeyValues, ...]:
        """The members."""
        return self.members

    def front(self, layer: int) -> Front | None:
        """Those of a layer, padded to the longest."""
        if layer not in self._fronts:
            parts = [member.front(layer) for member in self.members]
            self._fronts[layer] = self._rows_of(parts)
        return self._fronts[layer]

    def apart(self, layer: int) -> Apart | None:
        """Those of a layer with a softmax of their own, padded to the longest; gates of rows
        without are 0."""
        parts = [member.apart(layer) for member in self.members]
        rows = self._rows_of(parts)
        if rows is None:
            return None
        heads = next(part.gates.shape[1] for part in parts if part is not None)
        like = rows.keys
        gates = torch.stack(
            [like.new_zeros(heads) if part is None else part.gates[0].to(like) for part in parts]
        )
        of, none = self._of(like.device)
        return Apart(rows.keys, rows.values, gates[of].masked_fill(none[:, None], 0), rows.seen)

    def _rows_of(self, parts: Sequence[Front | Apart | None]) -> Front | None:
        first = next((part for part in parts if part is not None), None)
        if first is None:
            return None
        of, _ = self._of(first.keys.device)
        sides: list[Tensor] = []
        for name in ("keys", "values"):
            like: Tensor = getattr(first, name)
            table = like.new_zeros(len(parts), like.shape[1], self.length, like.shape[3])
            for number, part in enumerate(parts):
                if part is not None:
                    side: Tensor = getattr(part, name)
                    table[number, :, : side.shape[2]] = side[0]
            sides.append(table.index_select(0, of))
        here = tuple(part is not None for part in parts)
        seen = self._seen_by(here, first.keys.device)
        if here not in self._whole:
            self._whole[here] = bool(seen.all())
        return Front(sides[0], sides[1], None if self._whole[here] else seen)

    def seen(self, rows: int, device: torch.device) -> Tensor:
        """Each row's own."""
        by_member = self._seen_by(tuple(m.gates is None for m in self.members), device)
        return by_member.repeat_interleave(rows // len(by_member), 0)

    def _seen_by(self, here: tuple[bool, ...], device: torch.device) -> Tensor:
        """Which columns rows have; the same object for layers where the same members are."""
        if here not in self._seen:
            lengths = torch.tensor(
                [m.length if there else 0 for m, there in zip(self.members, here, strict=True)],
                device=device,
            )
            of, none = self._of(device)
            counts = lengths[of].masked_fill(none, 0)
            self._seen[here] = torch.arange(self.length, device=device) < counts[:, None]
        return self._seen[here]

    def _of(self, device: torch.device) -> tuple[Tensor, Tensor]:
        of = self.of.to(device)
        return of.clamp(min=0), of < 0

    def taken(self, rows: Tensor) -> RowKeyValues:
        """Those of some rows, by their numbers `[N]`."""
        of = self.of[rows.to(self.of.device)]
        used = sorted({number for number in of.tolist() if number >= 0})
        new = torch.full((len(self.members) + 1,), -1)
        new[used] = torch.arange(len(used))  # -1 stays -1: it reads the last place
        return RowKeyValues([self.members[number] for number in used], new[of.cpu()])

    def repeated(self, times: int) -> KeyValues:
        """Those of every row so many times."""
        return RowKeyValues(self.members, self.of.repeat_interleave(times))


def join_rows(parts: Sequence[tuple[KeyValues | None, int]]) -> RowKeyValues:
    """Keys and values of one site for the rows of several batches, one after the other.

    Args:
        parts: what the rows of a batch have, and how many rows they are.
    """
    members: dict[int, tuple[int, PromptKeyValues]] = {}
    of: list[Tensor] = []

    def number(member: PromptKeyValues) -> int:
        return members.setdefault(id(member), (len(members), member))[0]

    for tokens, rows in parts:
        if isinstance(tokens, RowKeyValues):
            numbers = torch.tensor([*map(number, tokens.members), -1])
            of.append(numbers[tokens.of.cpu()])
        elif isinstance(tokens, PromptKeyValues):
            of.append(torch.full((rows,), number(tokens)))
        else:
            of.append(torch.full((rows,), -1))
    return RowKeyValues([member for _, member in members.values()], torch.cat(of))
