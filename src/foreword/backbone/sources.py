"""Keys and values of texts that are read again and again, kept.

What stands before virtual tokens in a causal decoder does not see them: its keys and values stay
what they are while the prompt is trained, so no epoch need compute them twice.
"""

from __future__ import annotations

import torch
from torch import Tensor

from foreword.backbone.layout import Layout
from foreword.backbone.model import Backbone
from foreword.backbone.prompts.key_values import Past
from foreword.backbone.prompts.prompt import stack


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
        self._kept: dict[tuple[int, ...], tuple[Tensor, Tensor]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    @torch.no_grad()
    def keep(self, before: Layout) -> None:
        """Read the rows of a layout and keep them while there is room."""
        texts = _texts(before)
        keys, values = _joined(self.backbone.read(before))
        for row, text in enumerate(texts):
            if text in self._kept or not text:
                continue
            own_keys, own_values = (
                side[:, row, :, side.shape[3] - len(text) :].clone() for side in (keys, values)
            )
            size = own_keys.nbytes + own_values.nbytes
            if self.size + size > self.limit:
                self.full = True
                return
            self.size += size
            self._kept[text] = own_keys, own_values

    def recall(self, before: Layout) -> Past:
        """What `Backbone.read` gives; rows that are not kept are read."""
        texts = _texts(before)
        kept = [self._kept.get(text) for text in texts]
        first = next((one for one in kept if one is not None), None)
        if first is None:
            return self.backbone.read(before)
        new = [row for row, one in enumerate(kept) if one is None and texts[row]]
        read = _joined(self.backbone.read(before.taken(torch.tensor(new)))) if new else None
        columns = before.input_ids.shape[1]
        sides: list[Tensor] = []
        for side, like in enumerate(first):
            layers, heads, _, width = like.shape
            whole = like.new_zeros(layers, len(texts), heads, columns, width)
            for row, one in enumerate(kept):
                if one is not None:
                    whole[:, row, :, columns - one[side].shape[2] :] = one[side]
            if read is not None:
                whole[:, new] = read[side].to(whole.dtype)
            sides.append(whole)
        return tuple(zip(*sides, strict=True))


def _texts(before: Layout) -> list[tuple[int, ...]]:
    ids, starts = before.input_ids.tolist(), (~before.attention_mask).sum(1).tolist()
    return [tuple(row[start:]) for row, start in zip(ids, starts, strict=True)]


def _joined(past: Past) -> tuple[Tensor, Tensor]:
    """Keys and values of all layers, each `[layers, B, kv_heads, S, …_dim]`."""
    return stack([keys for keys, _ in past]), stack([values for _, values in past])
