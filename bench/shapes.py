"""Backbones of random weights and examples of random tokens, for `bench/steps.py`.

Only sizes matter for time: none of these models has read a text.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

from foreword.backbone.layout import Pair

LABELS = 2


@dataclass(frozen=True)
class Lengths:
    """Normal lengths in tokens, cut at two deviations."""

    mean: int
    deviation: int = 0

    def draw(self, dice: random.Random) -> int:
        """One length."""
        spread = max(-2.0, min(2.0, dice.gauss(0, 1)))
        return max(2, round(self.mean + spread * self.deviation))


@dataclass(frozen=True)
class Shape:
    """A backbone and the examples it is trained on.

    Attributes:
        make: the model, with random weights and without dropout.
        source: tokens that are read.
        target: tokens that are written; None where a label is told.
        rows: of a batch.
    """

    make: Callable[[], PreTrainedModel]
    source: Lengths
    target: Lengths | None
    rows: int

    @property
    def answer(self) -> Literal["text", "label"]:
        """What is asked for."""
        return "label" if self.target is None else "text"

    def pairs(self, count: int, vocabulary: int, seed: int) -> list[Pair]:
        """Examples whose tokens are random."""
        dice = random.Random(seed)

        def ids(number: int) -> list[int]:
            return [dice.randrange(3, vocabulary) for _ in range(number)]

        if self.target is None:
            return [
                Pair(ids(self.source.draw(dice)), marks=(0,), labels=(dice.randrange(LABELS),))
                for _ in range(count)
            ]
        read, written = self.source, self.target
        return [Pair(ids(read.draw(dice)), ids(written.draw(dice))) for _ in range(count)]


def _gpt2(**sizes: int) -> Callable[[], PreTrainedModel]:
    def make() -> PreTrainedModel:
        config = GPT2Config(
            **sizes, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0
        )
        return GPT2LMHeadModel(config)

    return make


def _llama(**sizes: int) -> Callable[[], PreTrainedModel]:
    def make() -> PreTrainedModel:
        return LlamaForCausalLM(
            LlamaConfig(**sizes, tie_word_embeddings=True, bos_token_id=0, eos_token_id=0)
        )

    return make


def _bert(**sizes: int) -> Callable[[], PreTrainedModel]:
    def make() -> PreTrainedModel:
        none = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        return BertForMaskedLM(BertConfig(**sizes, **none))

    return make


def _bart(**sizes: int) -> Callable[[], PreTrainedModel]:
    def make() -> PreTrainedModel:
        return BartForConditionalGeneration(
            BartConfig(**sizes, dropout=0.0, attention_dropout=0.0, activation_dropout=0.0)
        )

    return make


def _t5(**sizes: int) -> Callable[[], PreTrainedModel]:
    def make() -> PreTrainedModel:
        return T5ForConditionalGeneration(
            T5Config(**sizes, dropout_rate=0.0, decoder_start_token_id=0, eos_token_id=1)
        )

    return make


_TINY_BART = {
    f"{side}_{what}": count
    for side in ("encoder", "decoder")
    for what, count in (("layers", 2), ("attention_heads", 2), ("ffn_dim", 64))
}

SHAPES: Mapping[str, Shape] = {
    "gpt2": Shape(_gpt2(), Lengths(32, 7), Lengths(26, 8), 10),
    "llama-0.5b": Shape(
        _llama(
            num_hidden_layers=28,
            hidden_size=1024,
            num_attention_heads=16,
            num_key_value_heads=4,
            intermediate_size=4096,
            vocab_size=32000,
            max_position_embeddings=4096,
        ),
        Lengths(512, 64),
        Lengths(128, 16),
        2,
    ),
    "bert-base": Shape(_bert(), Lengths(128, 0), None, 16),
    "bart-base": Shape(
        _bart(
            d_model=768,
            encoder_layers=6,
            decoder_layers=6,
            encoder_attention_heads=12,
            decoder_attention_heads=12,
            encoder_ffn_dim=3072,
            decoder_ffn_dim=3072,
        ),
        Lengths(512, 64),
        Lengths(64, 8),
        4,
    ),
    "t5-small": Shape(_t5(), Lengths(512, 64), Lengths(64, 8), 4),
    "tiny-gpt2": Shape(
        _gpt2(n_layer=2, n_embd=32, n_head=2, vocab_size=101, n_positions=1024),
        Lengths(9, 2),
        Lengths(6, 2),
        3,
    ),
    "tiny-bert": Shape(
        _bert(
            num_hidden_layers=2,
            hidden_size=32,
            num_attention_heads=2,
            intermediate_size=64,
            vocab_size=101,
        ),
        Lengths(9, 2),
        None,
        3,
    ),
    "tiny-bart": Shape(
        _bart(**_TINY_BART, d_model=32, vocab_size=101), Lengths(9, 2), Lengths(6, 2), 3
    ),
    "tiny-t5": Shape(
        _t5(d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2, vocab_size=101),
        Lengths(9, 2),
        Lengths(6, 2),
        3,
    ),
}
"""GPT-2 124M on the E2E challenge's lengths; a Llama of 0.45 billion parameters on long sources (as
of XSUM); BERT-base on classification; BART-base and T5-small on summaries; and tiny ones, for tests
of the benchmark itself."""


def make_model(shape: str, seed: int = 0) -> PreTrainedModel:
    """The backbone of a shape, frozen, without dropout."""
    torch.manual_seed(seed)
    return SHAPES[shape].make().eval().requires_grad_(False)
