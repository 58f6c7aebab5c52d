"""Keys and values of texts that are read again and again, kept.

What stands before virtual tokens in a causal decoder does not see them: its keys and values stay
what they are while the prompt is trained, so no epoch need compute them twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from foreword.backbone.prompt import stack
from foreword.layout import Layout

if TYPE_CHECKING:
    from foreword.backbone.model import Backbone

Past = tuple[tuple[Tensor, Tensor], ...]
"""What rows have read: by layer, keys and values `[B, kv_heads, S, head_dim]`."""


class Sources:
    """Remembers what a frozen backbone made of texts.

    Args:
        backbone: reads them.
        limit: how many bytes may be kept.

    Attributes:
        size: bytes that are kept.
        full: whether a text found no room.
    """

    def __init__(self, backbone: Backbone, limit: float) -> None:
        self.backbone, self.limit = backbone, limit
        self.size, self.full = 0, False
        self._kept: dict[tuple[int, ...], Tensor] = {}

    def __len__(self) -> int:
        return len(self._kept)

    @torch.no_grad()
    def keep(self, before: Layout) -> None:
        """Read the rows of a layout and keep them while there is room."""
        texts = _texts(before)
        for row, whole in enumerate(_joined(self.backbone.read(before)).unbind(2)):
            own = whole[:, :, :, whole.shape[3] - len(texts[row]) :].contiguous()
            if texts[row] in self._kept or not texts[row]:
                continue
            if self.size + own.nbytes > self.limit:
                self.full = True
                return
            self.size += own.nbytes
            self._kept[texts[row]] = own

    def recall(self, before: Layout) -> Past:
        """What `Backbone.read` gives; rows that are not kept are read."""
        texts = _texts(before)
        kept = [self._kept.get(text) for text in texts]
        found = next((one for one in kept if one is not None), None)
        if found is None:
            return self.backbone.read(before)
        layers, two, heads, _, width = found.shape
        whole = found.new_zeros(layers, two, len(texts), heads, before.input_ids.shape[1], width)
        for row, one in enumerate(kept):
            if one is not None:
                whole[:, :, row, :, whole.shape[4] - one.shape[3] :] = one
        new = [row for row, one in enumerate(kept) if one is None and texts[row]]
        if new:
            whole[:, :, new] = _joined(self.backbone.read(before.taken(torch.tensor(new)))).to(
                whole.dtype
            )
        return tuple((keys, values) for keys, values in whole)


def _texts(before: Layout) -> list[tuple[int, ...]]:
    ids, starts = before.input_ids.tolist(), (~before.attention_mask).sum(1).tolist()
    return [tuple(row[start:]) for row, start in zip(ids, starts, strict=True)]


def _joined(past: Past) -> Tensor:
    """`[layers, 2, B, kv_heads, S, head_dim]`."""
    return stack([torch.stack(sides) for sides in past])
