"""What a frozen backbone makes of texts that are read again and again, kept.

What stands before virtual tokens in a causal decoder does not see them, and an encoder that no
prompt enters sees none: what they make of a text stays what it is while the prompt is trained, so
no epoch need compute it twice.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from foreword.backbone.layout import Layout
from foreword.backbone.model import Backbone
from foreword.backbone.prompts.key_values import Past


class Remembered(ABC):
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
        self._kept: dict[tuple[int, ...], tuple[Tensor, ...]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    @abstractmethod
    def read(self, texts: Layout) -> tuple[Tensor, ...]:
        """What the backbone makes of rows: tensors `[B, …, T, width]`."""

    @torch.no_grad()
    def keep(self, texts: Layout) -> None:
        """Read the rows of a layout and keep them while there is room."""
        made = self.read(texts)
        for row, (text, start) in enumerate(_texts(texts)):
            if text in self._kept or not text:
                continue
            own = tuple(one[row, ..., start : start + len(text), :].clone() for one in made)
            size = sum(one.nbytes for one in own)
            if self.size + size > self.limit:
                self.full = True
                return
            self.size += size
            self._kept[text] = own

    @torch.no_grad()
    def recalled(self, texts: Layout) -> tuple[Tensor, ...]:
        """What `read` gives, with 0 at padding; rows that are not kept are read."""
        rows = _texts(texts)
        kept = [self._kept.get(text) for text, _ in rows]
        first = next((one for one in kept if one is not None), None)
        if first is None:
            return self.read(texts)
        new = [row for row, one in enumerate(kept) if one is None and rows[row][0]]
        read = self.read(texts.taken(torch.tensor(new))) if new else None
        columns = texts.input_ids.shape[1]

        def whole(number: int) -> Tensor:
            like = first[number]
            made = like.new_zeros(len(rows), *like.shape[:-2], columns, like.shape[-1])
            for row, (own, (_, start)) in enumerate(zip(kept, rows, strict=True)):
                if own is not None:
                    made[row, ..., start : start + own[number].shape[-2], :] = own[number]
            if read is not None:
                made[new] = read[number].to(made.dtype)
            return made

        return tuple(whole(number) for number in range(len(first)))


class Sources(Remembered):
    """What stands before virtual tokens in a decoder's rows: keys and values by layer."""

    def read(self, texts: Layout) -> tuple[Tensor, ...]:
        """Keys and values in turns, `[B, kv_heads, T, …_dim]`."""
        return tuple(side for layer in self.backbone.read(texts) for side in layer)

    def recall(self, texts: Layout) -> Past:
        """What `Backbone.read` gives."""
        sides = self.recalled(texts)
        return tuple(zip(sides[::2], sides[1::2], strict=True))


class Encodings(Remembered):
    """What the encoder of an encoder-decoder reads: its last states."""

    def read(self, texts: Layout) -> tuple[Tensor, ...]:
        """The states, `[B, T, d]`."""
        return (self.backbone.encoded(texts),)

    def recall(self, texts: Layout) -> Tensor:
        """What `Backbone.encoded` gives."""
        return self.recalled(texts)[0]


def _texts(rows: Layout) -> list[tuple[tuple[int, ...], int]]:
    """The tokens of each row, padded on either side, and in which column they begin."""
    mask = rows.attention_mask
    starts, lengths = mask.long().argmax(1).tolist(), mask.sum(1).tolist()
    return [
        (tuple(ids[start : start + length]), start)
        for ids, start, length in zip(rows.input_ids.tolist(), starts, lengths, strict=True)
    ]
