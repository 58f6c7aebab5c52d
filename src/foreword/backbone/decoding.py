"""How answers are decoded, so that neither padding nor a batch-mate has a say in them.

transformers' own penalties look at whole rows, padding included, and its own stop strings at input
and answer together; both are given here what they are meant to look at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    StoppingCriteria,
    StoppingCriteriaList,
)

from foreword.backbone.tokens import Tokens
from foreword.layout import Layout


@dataclass(frozen=True)
class Decoding:
    """How answers are decoded; the names are `transformers.GenerationConfig`'s."""

    max_new_tokens: int = 64
    num_beams: int = 1
    do_sample: bool = False
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    length_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    stop: tuple[str, ...] = ()


def generation_config(tokens: Tokens, how: Decoding) -> GenerationConfig:
    """What transformers' `generate` does by itself."""
    options: dict[str, Any] = {
        "max_new_tokens": how.max_new_tokens,
        "num_beams": how.num_beams,
        "do_sample": how.do_sample,
        "eos_token_id": tokens.eos_id,
        "pad_token_id": tokens.pad_id,
        "bos_token_id": tokens.tokenizer.bos_token_id,
    }
    if how.do_sample:
        options |= {"temperature": how.temperature, "top_p": how.top_p, "top_k": how.top_k}
    if how.num_beams > 1:
        options["length_penalty"] = how.length_penalty
    return GenerationConfig(**options)


def watch(tokens: Tokens, layout: Layout, how: Decoding, *, vocabulary: int) -> dict[str, Any]:
    """Penalties and stop words, as arguments of `generate`; ids from `vocabulary` on are virtual
    tokens, which no penalty knows."""
    extra: dict[str, Any] = {}
    if how.stop:
        words = _StopWords(tokens, how.stop, layout.input_ids.shape[1])
        extra["stopping_criteria"] = StoppingCriteriaList([words])
    processors: list[LogitsProcessor] = []
    if how.repetition_penalty != 1.0:
        processors.append(RepetitionPenaltyLogitsProcessor(how.repetition_penalty))
    if how.no_repeat_ngram_size:
        processors.append(NoRepeatNGramLogitsProcessor(how.no_repeat_ngram_size))
    if processors:
        inputs = [_real(part, vocabulary) for part in (layout.before, layout) if part is not None]
        read = [torch.cat(parts) for parts in zip(*inputs, strict=True)]
        read = [row for row in read for _ in range(how.num_beams)]
        own = _WithoutPadding(processors, read, layout.input_ids.shape[1])
        extra["logits_processor"] = LogitsProcessorList([own])
    return extra


def _real(part: Layout, vocabulary: int) -> list[Tensor]:
    """The tokens of each row that are neither padding nor virtual."""
    kept = part.attention_mask & (part.input_ids < vocabulary)
    return [ids[mask] for ids, mask in zip(part.input_ids, kept, strict=True)]


class _StopWords(StoppingCriteria):  # type: ignore[misc]
    """Ends a row at a stop word in its answer; the input's own text does not count."""

    def __init__(self, tokens: Tokens, stops: tuple[str, ...], start: int) -> None:
        self.tokens, self.stops, self.start = tokens, stops, start

    def __call__(self, ids: Tensor, scores: Any, **_: Any) -> Tensor:  # noqa: ARG002
        texts = [self.tokens.text(row) for row in ids[:, self.start :].tolist()]
        return torch.tensor(
            [any(stop in text for stop in self.stops) for text in texts], device=ids.device
        )


class _WithoutPadding(LogitsProcessor):  # type: ignore[misc]
    """Processors that look at the tokens so far, shown each row's own: what it read, and what it
    wrote after the first `start` columns."""

    def __init__(self, processors: list[LogitsProcessor], read: list[Tensor], start: int) -> None:
        self.processors, self.read, self.start = processors, read, start

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        rows = []
        for row, read in enumerate(self.read):
            one = scores[row : row + 1]
            ids = torch.cat([read, input_ids[row, self.start :]])[None]
            for processor in self.processors:
                one = processor(ids, one)
            rows.append(one)
        return torch.cat(rows)
