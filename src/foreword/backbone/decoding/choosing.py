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
from foreword.backbone.text.streaming import TextStream
from foreword.backbone.text.tokens import Tokens

End = Literal["end", "stop", "length", "failed"]
"""Why an answer ended: by the end token, at a stop word, at its most tokens, or by an error."""


@dataclass(frozen=True)
class Telling:
    """What is told of a row beside its tokens.

    Attributes:
        text: whether its text is told as it becomes certain.
        best: how many of the likeliest tokens are told with their log-probabilities, beside that
            of the token itself; None: no log-probabilities.
        source: whether those of the tokens that are read are told, too.
    """

    text: bool = False
    best: int | None = None
    source: bool = False


@dataclass(frozen=True)
class Likely:
    """How likely a token was before any setting of decoding.

    Attributes:
        token: which one.
        log: of its probability, in nats.
        best: the likeliest tokens with theirs, the first first.
    """

    token: int
    log: float
    best: tuple[tuple[int, float], ...] = ()


def penalties(how: Decoding) -> list[LogitsProcessor]:
    """What lowers tokens that a row has read or written already."""
    processors: list[LogitsProcessor] = []
    if how.repetition_penalty != 1.0:
        processors.append(RepetitionPenaltyLogitsProcessor(how.repetition_penalty))
    if how.no_repeat_ngram_size:
        processors.append(NoRepeatNGramLogitsProcessor(how.no_repeat_ngram_size))
    return processors


def warpers(how: Decoding) -> list[LogitsProcessor]:
    """What shapes the distribution that a token is drawn from, in transformers' order."""
    processors: list[LogitsProcessor] = []
    if how.temperature != 1.0:
        processors.append(TemperatureLogitsWarper(how.temperature))
    if how.top_k:
        processors.append(TopKLogitsWarper(how.top_k))
    if how.top_p < 1.0:
        processors.append(TopPLogitsWarper(how.top_p))
    return processors


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
        telling: what is told of it.
        read: the tokens it has read, where its settings ask for them.
        generator: what it draws from.
        text: of what it has written, where that is told or has a stop word.
        new: the tokens written so far, without an end token.
        likely: of the token that was written last, or of the end token, where that is told.
        source: of the tokens it has read, where that is told: None for the first.
        ended: why it is at an end; None while it is not.
        error: what it failed by.
    """

    number: int
    how: Decoding
    telling: Telling = field(default_factory=Telling)
    read: Tensor | None = None
    generator: torch.Generator | None = None
    text: TextStream | None = None
    new: list[int] = field(default_factory=list)
    likely: Likely | None = None
    source: list[Likely | None] = field(default_factory=list)
    ended: End | None = None
    error: Exception | None = None

    @classmethod
    def of(
        cls,
        number: int,
        how: Decoding,
        read: Tensor,
        seed: int | None,
        device: torch.device,
        tokens: Tokens,
        telling: Telling | None = None,
    ) -> Row:
        """A row that has written nothing yet.

        Args:
            number: by which the answer is known outside.
            how: its settings.
            read: the real tokens it has read.
            seed: of its draws; drawn itself from torch's random state if not given.
            device: where logits lie.
            tokens: make text of what it writes.
            telling: what is told of it.
        """
        telling = telling or Telling()
        generator = None
        if how.do_sample:
            if seed is None:
                seed = int(torch.randint(2**62, ()).item())
            generator = torch.Generator(device=device).manual_seed(seed)
        text = TextStream(tokens, how.stop) if how.stop or telling.text else None
        return cls(number, how, telling, read if penalties(how) else None, generator, text)

    @property
    def plain(self) -> bool:
        """Whether the likeliest token is taken as it is."""
        return self.read is None and not self.how.do_sample

    def take(self, token: int, end: int) -> int | None:
        """Write a token down, or end.

        Args:
            token: which one.
            end: the end token.

        Returns:
            The token, where it was written.
        """
        if token == end or len(self.new) >= self.how.max_new_tokens:
            self.ended = "end" if token == end else "length"
            return None
        self.new.append(token)
        if self.text is not None:
            self.text.add(token)
        if self.text is not None and self.text.stopped:
            self.ended = "stop"
        elif len(self.new) >= self.how.max_new_tokens:
            self.ended = "length"
        return token

    def fail(self, error: Exception) -> None:
        """End by an error."""
        self.ended, self.error = "failed", error


def choose(rows: Sequence[Row], logits: Tensor) -> list[int]:
    """The next token of each row, and how likely it was where that is told.

    A row that has no next token, since its logits are no numbers, fails.

    Args:
        rows: the state of each.
        logits: `[rows, vocabulary]`.
    """
    best = logits.max(-1)
    chosen: list[int] = best.indices.tolist()
    numbers: list[bool] = best.values.isnan().logical_not().tolist()
    for number, row in enumerate(rows):
        if not numbers[number]:
            row.fail(FloatingPointError("the backbone gave logits that are no numbers"))
            continue
        own = logits[number : number + 1]
        if not row.plain:
            chosen[number] = _by_itself(row, own)
        if row.telling.best is not None:
            (row.likely,) = likely(own, [chosen[number]], row.telling.best)
    return chosen


def likely(logits: Tensor, tokens: Sequence[int], best: int) -> list[Likely]:
    """How likely tokens are.

    Args:
        logits: `[N, vocabulary]`.
        tokens: N, one for each.
        best: how many of the likeliest ones are told beside it.
    """
    logs = (logits.float() if logits.element_size() < 4 else logits).log_softmax(-1)
    own = logs.gather(1, torch.tensor(tokens, device=logs.device)[:, None])[:, 0].tolist()
    top = logs.topk(min(best, logs.shape[-1]), dim=-1)
    pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
    return [
        Likely(token, log, tuple(zip(ids, values, strict=True)))
        for token, log, (ids, values) in zip(tokens, own, pairs, strict=True)
    ]


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
