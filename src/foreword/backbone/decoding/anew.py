"""Rows that are read anew for every token: nothing of them is kept between two steps.

For decoders of which it is not known what they keep (Mamba's states, RWKV's, those of a model with
code of its own). Each step costs as much as reading the whole row, and is right whatever the model
is; rows are padded on the right, where no causal model looks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from foreword.backbone.call import Call, columns_of
from foreword.backbone.decoding.choosing import Row, likely
from foreword.backbone.layout import Layout
from foreword.backbone.model import Backbone


class Anew:
    """Rows of one age, as `Cohort` has them.

    Args:
        backbone: a decoder.
        call: the rows' sources; virtual tokens have columns.
        rows: the state of each answer.

    Attributes:
        rows: the same, those that are left.
    """

    def __init__(self, backbone: Backbone, call: Call, rows: Sequence[Row]) -> None:
        self.backbone, self.rows, self.prompt = backbone, list(rows), call.prompt
        self._columns = columns_of(call, max(row.how.max_new_tokens for row in rows))
        layout = call.layout
        self._ids: list[list[int]] = [
            ids[mask].tolist()
            for ids, mask in zip(layout.input_ids, layout.attention_mask, strict=True)
        ]
        self._written = 0
        with_source = [i for i, row in enumerate(rows) if row.telling.source]
        if with_source:
            logits = backbone.logits(self._call())
            for i in with_source:
                row, ids = rows[i], self._ids[i]
                own = likely(logits[i, : len(ids) - 1], ids[1:], row.telling.best or 0)
                row.source = [None, *own]

    @property
    def held(self) -> int:
        """Positions that its rows may take."""
        return self._columns * len(self.rows)

    def keep(self, rows: Sequence[int]) -> None:
        """Let all rows go but some."""
        kept = sorted(rows)
        self.rows = [self.rows[row] for row in kept]
        self._ids = [self._ids[row] for row in kept]

    @torch.no_grad()
    def next(self) -> Tensor:
        """What comes next in each row: `[rows, vocabulary]`."""
        for row, ids in zip(self.rows, self._ids, strict=True):
            ids += row.new[self._written :]
        self._written = max(len(row.new) for row in self.rows)
        call = self._call()
        width = call.layout.input_ids.shape[1]
        last = [row * width + len(ids) - 1 for row, ids in enumerate(self._ids)]
        return self.backbone.logits(call, torch.tensor(last, device=self.backbone.device))

    def _call(self) -> Call:
        first = self.backbone.geometry.first_position
        layout = Layout.of(self._ids, first_position=first, pad_id=self.backbone.tokens.pad_id)
        return Call(layout.to(self.backbone.device), self.prompt)
