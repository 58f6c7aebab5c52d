"""Rows that are written in step: all began together, and share transformers' own cache.

For what counts positions from that cache: encoder-decoders, and decoders whose attention does not
go through the interface. A row may leave at any step; new rows begin a cohort of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from foreword.backbone.call import Call, columns_of, in_the_midst, way, whole_mask
from foreword.backbone.decoding.beams import cacheable
from foreword.backbone.decoding.choosing import Row, likely
from foreword.backbone.model import Backbone
from foreword.backbone.prompts import cache
from foreword.backbone.prompts.carrying import ARGUMENT, reading_at
from foreword.backbone.prompts.prompt import Prompt


class Cohort:
    """Rows of one age.

    Args:
        backbone: an encoder-decoder, or a decoder with its own cache.
        call: the rows' sources; a decoder's are left-padded, and an encoder-decoder's answers all
            begin with as many tokens.
        rows: the state of each answer.

    Attributes:
        rows: the same, those that are left.
    """

    def __init__(self, backbone: Backbone, call: Call, rows: Sequence[Row]) -> None:
        self.backbone, self.rows = backbone, list(rows)
        self._columns = columns_of(call, max(row.how.max_new_tokens for row in rows))
        self._source = call.layout.source
        self._carried: Prompt | None = call.prompt
        self._mask: Tensor | None = None
        self._encoded: Any = None
        kind, _ = way(backbone.geometry, call)
        front, many = call.front(), call.rows
        if self._source is not None:
            self._encoded = backbone.encode(call)
            begun = None
            if kind == "start":
                begun, self._carried = cache.fill(backbone.model, front, rows=many), None
            self._cache = cache.empty(begun)
            if not bool(call.layout.attention_mask.all()):
                self._mask = whole_mask(call).long()
        else:
            self._mask = call.layout.attention_mask.long()
            self._cache = cache.new(backbone.model)
            if kind == "between":
                past = backbone.past(call)
                own, self._carried = in_the_midst(backbone.geometry, call)
                self._cache = cache.fill(backbone.model, own, rows=many, past=past)
                self._mask = whole_mask(call, virtual=self._carried is None).long()
            elif cacheable(backbone, call) is not None:
                self._cache = cache.fill(backbone.model, front, rows=many)
                self._mask, self._carried = whole_mask(call).long(), None
        self._positions = call.layout.position_ids
        embeddings = None if call.prompt is None else Prompt(embeddings=call.prompt.embeddings)
        layout = call.layout
        telling = any(row.telling.source for row in rows)
        with backbone.looking_up(embeddings):
            if not telling:
                self._logits, self._fresh = self._last(layout.input_ids), True
                return
            logits = self._run(layout.input_ids)
        self._logits, self._fresh = logits[:, -1], True
        for row, own, ids, mask in zip(
            rows, logits, layout.input_ids, layout.attention_mask, strict=True
        ):
            if row.telling.source:
                likelihoods = likely(own[mask][:-1], ids[mask][1:].tolist(), row.telling.best or 0)
                row.source = [None, *likelihoods]

    @property
    def held(self) -> int:
        """Positions that its rows may take."""
        return self._columns * len(self.rows)

    def keep(self, rows: Sequence[int]) -> None:
        """Let all rows go but some."""
        if len(rows) == len(self.rows):
            return
        kept = sorted(rows)
        self.rows = [self.rows[row] for row in kept]
        at = torch.tensor(kept, dtype=torch.long, device=self._positions.device)
        self._positions = self._positions[at]
        self._logits = self._logits[at.to(self._logits.device)]
        self._cache.batch_select_indices(at)
        self._mask = None if self._mask is None else self._mask[at]
        if self._encoded is not None:
            self._encoded["last_hidden_state"] = self._encoded.last_hidden_state[at]
        self._source = None if self._source is None else self._source.taken(at)
        self._carried = None if self._carried is None else self._carried.taken(at)

    @torch.no_grad()
    def next(self) -> Tensor:
        """What comes next in each row: `[rows, vocabulary]`. The last token that each has written
        is read for that."""
        if not self._fresh:
            device = self._positions.device
            ids = torch.tensor([[row.new[-1]] for row in self.rows], device=device)
            self._positions = self._positions[:, -1:] + 1
            if self._mask is not None:
                self._mask = torch.cat([self._mask, torch.ones_like(ids)], dim=1)
            self._logits = self._run(ids)[:, -1]
        self._fresh = False
        return self._logits

    def _last(self, ids: Tensor) -> Tensor:
        """What comes after rows: `[rows, vocabulary]`. The head at all positions of long sources
        would give more numbers than anything else."""
        rows, columns = ids.shape
        head = self.backbone.model.get_output_embeddings()
        if head is None:  # it is none that the model names
            return self._run(ids)[:, -1]
        at = columns * torch.arange(1, rows + 1, device=ids.device) - 1
        with reading_at(head, at):
            return self._run(ids)

    def _run(self, ids: Tensor) -> Tensor:
        g = self.backbone.geometry
        given: dict[str, Any] = {"past_key_values": self._cache, "use_cache": True}
        if self._source is None:
            given |= {"input_ids": ids, "attention_mask": self._mask}
            if g.takes_positions:
                given["position_ids"] = self._positions
        else:
            given |= {
                "encoder_outputs": self._encoded,
                "attention_mask": self._source.attention_mask.long(),
                "decoder_input_ids": ids,
            }
            if self._mask is not None:
                given["decoder_attention_mask"] = self._mask
        if self._carried is not None and self._carried.sites and g.through == "interface":
            given[ARGUMENT] = self._carried
        with self.backbone.turn:
            output = self.backbone.model(**given)
        self._cache = output.past_key_values
        logits: Tensor = output.logits
        return logits
