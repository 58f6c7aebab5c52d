"""The next token of each row, by the row's own settings and seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from foreword.backbone.decoding.options import Decoding
from foreword.backbone.layout import Layout
from foreword.backbone.text.tokens import Tokens

End = Literal["end", "stop", "length"]
"""Why an answer ended: by the end token, at a stop word, or at its most tokens."""


def penalties(how: Decoding) -> list[LogitsProcessor]:
    """What lowers tokens that a row has read or written already."""
    found: list[LogitsProcessor] = []
    if how.repetition_penalty != 1.0:
        found.append(RepetitionPenaltyLogitsProcessor(how.repetition_penalty))
    if how.no_repeat_ngram_size:
        found.append(NoRepeatNGramLogitsProcessor(how.no_repeat_ngram_size))
    return found


def warpers(how: Decoding) -> list[LogitsProcessor]:
    """What shapes the distribution that a token is drawn from, in transformers' order."""
    found: list[LogitsProcessor] = []
    if how.temperature != 1.0:
        found.append(TemperatureLogitsWarper(how.temperature))
    if how.top_k:
        found.append(TopKLogitsWarper(how.top_k))
    if how.top_p < 1.0:
        found.append(TopPLogitsWarper(how.top_p))
    return found


def real_tokens(layout: Layout, vocabulary: int) -> list[Tensor]:
    """The tokens of each row that are neither padding nor virtual, those before an infix too."""
    inputs = []
    for part in (layout.before, layout):
        if part is not None:
            kept = part.attention_mask & (part.input_ids < vocabulary)
            inputs.append([ids[row] for ids, row in zip(part.input_ids, kept, strict=True)])
    return [torch.cat(parts) for parts in zip(*inputs, strict=True)]


@dataclass(eq=False)
class Row:
    """The state of one answer.

    Attributes:
        number: by which the answer is known outside.
        how: its settings.
        read: the tokens it has read, where its settings ask for them.
        generator: what it draws from.
        new: the tokens written so far, without an end token.
        ended: why it is at an end; None while it is not.
    """

    number: int
    how: Decoding
    read: Tensor | None = None
    generator: torch.Generator | None = None
    new: list[int] = field(default_factory=list)
    ended: End | None = None

    @classmethod
    def of(
        cls, number: int, how: Decoding, read: Tensor, seed: int | None, device: torch.device
    ) -> Row:
        """A row that has written nothing yet.

        Args:
            number: by which the answer is known outside.
            how: its settings.
            read: the real tokens it has read.
            seed: of its draws; drawn itself from torch's random state if not given.
            device: where logits lie.
        """
        generator = None
        if how.do_sample:
            if seed is None:
                seed = int(torch.randint(2**62, ()).item())
            generator = torch.Generator(device=device).manual_seed(seed)
        return cls(number, how, read if penalties(how) else None, generator)

    @property
    def plain(self) -> bool:
        """Whether the likeliest token is taken as it is."""
        return self.read is None and not self.how.do_sample

    def take(self, token: int, tokens: Tokens) -> None:
        """Write a token down, or end."""
        if token == tokens.eos_id:
            self.ended = "end"
            return
        self.new.append(token)
        if self.how.stop and any(stop in tokens.text(self.new) for stop in self.how.stop):
            self.ended = "stop"
        elif len(self.new) >= self.how.max_new_tokens:
            self.ended = "length"


def choose(rows: Sequence[Row], logits: Tensor) -> list[int]:
    """The next token of each row.

    Args:
        rows: the state of each.
        logits: `[rows, vocabulary]`.
    """
    chosen: list[int] = logits.argmax(-1).tolist()
    for number, row in enumerate(rows):
        if not row.plain:
            chosen[number] = _by_itself(row, logits[number : number + 1])
    return chosen


def _by_itself(row: Row, logits: Tensor) -> int:
    logits = logits.float() if logits.element_size() < 4 else logits
    ids = torch.tensor([row.new], dtype=torch.long, device=logits.device)
    if row.read is not None:
        ids = torch.cat([row.read.to(logits.device)[None], ids], dim=1)
    processors = penalties(row.how) + (warpers(row.how) if row.how.do_sample else [])
    logits = LogitsProcessorList(processors)(ids, logits)
    if not row.how.do_sample:
        return int(logits.argmax())
    return int(torch.multinomial(logits.softmax(-1), 1, generator=row.generator))
