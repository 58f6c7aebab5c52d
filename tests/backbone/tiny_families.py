"""One small random backbone of each kind of model, and a batch that suits it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    PreTrainedModel,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from conftest import mini_tokens, random_ids
from foreword.axes.injection import KeysValues
from foreword.backbone import Backbone, Prompt
from foreword.backbone.layout import Layout

SMALL = {"vocab_size": 512, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}
KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "gpt2": (AutoModelForCausalLM, {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64}),
    "llama": (
        AutoModelForCausalLM,
        {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 64,
        },
    ),
    "bloom": (AutoModelForCausalLM, {"hidden_size": 32, "n_layer": 3, "n_head": 4}),
    "bert": (
        AutoModelForMaskedLM,
        {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "max_position_embeddings": 64,
        },
    ),
    "bart": (
        AutoModelForSeq2SeqLM,
        {
            "d_model": 32,
            "encoder_layers": 2,
            "decoder_layers": 3,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 64,
            "decoder_ffn_dim": 64,
            "max_position_embeddings": 64,
            "decoder_start_token_id": 1,
            "dropout": 0.5,
            "attention_dropout": 0.5,
        },
    ),
    "t5": (
        AutoModelForSeq2SeqLM,
        {
            "d_model": 32,
            "d_ff": 64,
            "d_kv": 16,
            "num_layers": 3,
            "num_heads": 4,
            "decoder_start_token_id": 0,
        },
    ),
}
"""BART has unequal depths, and dropout that would show if it were on."""


def small_model(
    family: str, dtype: torch.dtype = torch.float32, **overrides: Any
) -> PreTrainedModel:
    """A random model whose weights are large enough that a mistake shows."""
    auto, config = KINDS[family]
    torch.manual_seed(0)
    model = auto.from_config(CONFIG_MAPPING[family](**(SMALL | config | overrides)))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, 0.2)
    return model.to(dtype)


def small_backbone(family: str, dtype: torch.dtype = torch.float32) -> Backbone:
    """The model, wrapped."""
    return Backbone.wrap(small_model(family, dtype), mini_tokens())


def random_prompt(backbone: Backbone, length: int) -> tuple[Tensor, Prompt]:
    """Virtual tokens `[P, width]` in float32, with gradient, and the prompt that they make."""
    injection = KeysValues(backbone.geometry)
    generator = torch.Generator().manual_seed(length)
    rows = torch.randn(length, injection.width, generator=generator)
    kept = rows.to(torch.promote_types(backbone.model.dtype, torch.float32)).requires_grad_()
    return kept, injection.prompt_of(kept)


def batch(backbone: Backbone, virtual: int, *, side: str = "right", seed: int = 0) -> Layout:
    """Two rows of different lengths; of two parts for an encoder-decoder."""
    first, second = ([2 + i % 500 for i in ids] for ids in random_ids([6, 4], seed=seed))
    first_position = backbone.geometry.first_position
    if backbone.geometry.kind != "encoder-decoder":
        positions = "shift" if backbone.geometry.kind == "decoder" else "keep"
        laid = Layout.of(
            [first, second],
            virtual=virtual,
            positions=positions,
            first_position=first_position,
            side=side,
        )
    else:
        begin = list(backbone.begin or ())
        source = Layout.of([first, second], virtual=virtual, positions="keep")
        rows = [begin, begin] if side == "left" else [[*begin, 5, 6], [*begin, 7]]
        laid = Layout.of(rows, virtual=virtual, positions="keep", source=source)
    return laid.to(backbone.device)
