"""Keys and values of rows that are being written, in memory that is kept from step to step.

A row's columns are its own: first what stands before its text (virtual tokens, and the part before
an infix), then its tokens. Rows have different lengths; a token is written where its row ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Held:
    """What a slot holds.

    Attributes:
        end: columns that are filled.
        position: the position id of the token that is read next.
        front: how many columns hold virtual tokens.
        at: the column where they begin: 0, but after what stands before an infix.
        layers: where the row has virtual tokens; in others their columns are idle.
    """

    end: int = 0
    position: int = 0
    front: int = 0
    at: int = 0
    layers: frozenset[int] = frozenset()

    def idle(self, layer: int) -> bool:
        """Whether columns of virtual tokens hold nothing in a layer."""
        return self.front > 0 and layer not in self.layers


class Slots:
    """Rows of keys and values of every layer.

    Args:
        columns: how many positions each row has.
        rows: for how many rows there is memory at first; it grows with them.

    Attributes:
        held: what each row in use holds, in the order of the rows.
        rows: for how many rows there is memory.
    """

    def __init__(self, columns: int, rows: int = 1) -> None:
        self.columns, self.rows = columns, rows
        self.held: list[Held] = []
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}

    @property
    def longest(self) -> int:
        """Columns that are filled in the longest row."""
        return max((held.end for held in self.held), default=0)

    def layer(self, number: int, like: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Keys and values of a layer: `[rows, kv_heads, columns, …_dim]`.

        Args:
            number: of the layer.
            like: keys and values `[…, kv_heads, T, …_dim]`, whose type and device they get.
        """
        if number not in self._layers:
            key, value = (
                side.new_zeros(self.rows, side.shape[-3], self.columns, side.shape[-1])
                for side in like
            )
            self._layers[number] = key, value
        return self._layers[number]

    def resize(self, rows: int) -> None:
        """Have memory for so many rows, at least those in use."""
        rows = max(rows, len(self.held))
        if rows == self.rows:
            return
        used, end = min(len(self.held), rows), self.longest
        for number, sides in self._layers.items():
            key, value = (side.new_zeros(rows, *side.shape[1:]) for side in sides)
            for new, old in zip((key, value), sides, strict=True):
                new[:used, :, :end] = old[:used, :, :end]
            self._layers[number] = key, value
        self.rows = rows

    def append(self, other: Slots) -> None:
        """Take over the one row that other slots hold; there must be memory for it."""
        (held,) = other.held
        row, end = len(self.held), held.end
        for number, sides in other._layers.items():
            for kept, side in zip(self.layer(number, sides), sides, strict=True):
                kept[row, :, :end] = side[0, :, :end]
        self.held.append(held)

    def keep(self, rows: Sequence[int]) -> list[int]:
        """Give back all rows but some; those kept move to the front.

        Returns:
            Which of the rows from before now stands in each row.
        """
        kept = sorted(rows)
        count = len(kept)
        order = list(range(count))
        holes = sorted(set(order) - set(kept))
        moving = [row for row in kept if row >= count]
        if holes:
            to = torch.tensor(holes)
            frm = torch.tensor(moving)
            end = max(self.held[row].end for row in moving)
            for sides in self._layers.values():
                for side in sides:
                    a, b = to.to(side.device), frm.to(side.device)
                    side[a, :, :end] = side[b, :, :end]
        for hole, row in zip(holes, moving, strict=True):
            order[hole] = row
        self.held = [self.held[row] for row in order]
        return order
