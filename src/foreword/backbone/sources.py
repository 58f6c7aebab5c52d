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
        self._kept: dict[tuple[int, ...], Past] = {}

    def __len__(self) -> int:
        return len(self._kept)

    @torch.no_grad()
    def keep(self, before: Layout) -> None:
        """Read the rows of a layout and keep them while there is room."""
        texts = _texts(before)
        past = self.backbone.read(before)
        for row, text in enumerate(texts):
            if text in self._kept or not text:
                continue
            own = tuple(
                (keys[row, :, -len(text) :].clone(), values[row, :, -len(text) :].clone())
                for keys, values in past
            )
            size = sum(keys.nbytes + values.nbytes for keys, values in own)
            if self.size + size > self.limit:
                self.full = True
                return
            self.size += size
            self._kept[text] = own

    def recall(self, before: Layout) -> Past:
        """What `Backbone.read` gives; rows that are not kept are read."""
        texts = _texts(before)
        kept = [self._kept.get(text) for text in texts]
        first = next((one for one in kept if one is not None), None)
        if first is None:
            return self.backbone.read(before)
        new = [row for row, one in enumerate(kept) if one is None and texts[row]]
        read = self.backbone.read(before.taken(torch.tensor(new))) if new else None
        columns = before.input_ids.shape[1]

        def whole(layer: int, side: int) -> Tensor:
            like = first[layer][side]
            heads, _, width = like.shape
            rows = like.new_zeros(len(texts), heads, columns, width)
            for row, one in enumerate(kept):
                if one is not None:
                    own = one[layer][side]
                    rows[row, :, columns - own.shape[1] :] = own
            if read is not None:
                rows[new] = read[layer][side].to(rows.dtype)
            return rows

        return tuple((whole(layer, 0), whole(layer, 1)) for layer in range(len(first)))


def _texts(before: Layout) -> list[tuple[int, ...]]:
    ids, starts = before.input_ids.tolist(), (~before.attention_mask).sum(1).tolist()
    return [tuple(row[start:]) for row, start in zip(ids, starts, strict=True)]
