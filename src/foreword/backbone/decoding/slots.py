"""Keys and values of rows that are being written, in memory that is allocated once.

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
        front: columns before the row's text that hold virtual tokens.
        at: the column where virtual tokens begin: 0, but after what stands before an infix.
        hidden: layers where the row has no virtual tokens, and its columns for them are idle.
    """

    end: int = 0
    front: int = 0
    at: int = 0
    hidden: frozenset[int] = frozenset()


class Slots:
    """Rows of keys and values of every layer.

    Args:
        rows: how many there are.
        columns: how many positions each has.

    Attributes:
        held: what each row in use holds, in the order of the rows.
    """

    def __init__(self, rows: int, columns: int) -> None:
        self.rows, self.columns = rows, columns
        self.held: list[Held] = []
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}

    @property
    def free(self) -> int:
        """Rows that are not in use."""
        return self.rows - len(self.held)

    @property
    def longest(self) -> int:
        """Columns that are filled in the longest row."""
        return max((held.end for held in self.held), default=0)

    def layer(self, number: int, like: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Keys and values of a layer: `[rows, kv_heads, columns + 1, …_dim]`. The last column
        takes what belongs nowhere.

        Args:
            number: of the layer.
            like: keys and values `[…, kv_heads, T, …_dim]`, whose type and device they get.
        """
        if number not in self._layers:
            key, value = (
                side.new_zeros(self.rows, side.shape[1], self.columns + 1, side.shape[3])
                for side in like
            )
            self._layers[number] = key, value
        return self._layers[number]

    def put(self, number: int, key: Tensor, value: Tensor, rows: Tensor, columns: Tensor) -> None:
        """Write keys and values `[N, kv_heads, C, …_dim]` of a layer.

        Args:
            number: of the layer.
            key, value: what is written.
            rows: `[N]`.
            columns: `[N, C]`, where each stands; `self.columns` for what is not kept.
        """
        at = rows.to(key.device)[:, None], columns.to(key.device)
        for kept, side in zip(self.layer(number, (key, value)), (key, value), strict=True):
            kept.transpose(1, 2)[at] = side.transpose(1, 2).to(kept.dtype)

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
