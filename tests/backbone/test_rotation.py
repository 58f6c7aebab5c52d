"""Keys moved to later positions: whatever way a model turns them, or a refusal."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import LLAMA_LIKE, cached_logits, make_backbone, random_ids
from foreword.backbone import Backbone, Prompt, PromptKeyValues
from foreword.backbone.rotation import turned
from foreword.errors import BackboneError

HALVES: dict[str, Any] = {k: v for k, v in LLAMA_LIKE.items() if k != "num_key_value_heads"}
ROTARY: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen3": {},
    "gpt_neox": HALVES,
    "phi": {**HALVES, "partial_rotary_factor": 0.5},
    "cohere": LLAMA_LIKE,
}
"""Whole heads and parts of them, halves and pairs."""


def prompt_of(backbone: Backbone, length: int, seed: int) -> PromptKeyValues:
    g = backbone.geometry.main
    generator = torch.Generator().manual_seed(seed)
    shape = (2, g.layers, length, g.heads[0].kv_heads, g.heads[0].key_dim)
    keys, values = torch.randn(shape, generator=generator, dtype=torch.float64)
    return PromptKeyValues(keys.to(backbone.model.dtype), values.to(backbone.model.dtype))


def apart(backbone: Backbone, length: int, seed: int) -> tuple[float, float]:
    """How far logits lie from those of text that keeps its positions: with turned keys, and with
    the keys as they are."""
    prompt = prompt_of(backbone, length, seed)
    moved = PromptKeyValues(turned(backbone, prompt.keys, length), prompt.values)
    (ids,) = random_ids([6], seed=seed)
    kept = cached_logits(backbone, ids, Prompt({"decoder": prompt}), "keep")
    found, as_it_was = (
        cached_logits(backbone, ids, Prompt({"decoder": one}), "shift") for one in (moved, prompt)
    )
    return (found - kept).abs().max().item(), (as_it_was - kept).abs().max().item()


@pytest.mark.parametrize("family", ROTARY)
def test_logits_are_those_of_text_that_keeps_its_positions(family) -> None:
    """The model's own cosines are of float32, so that no more than their rounding is asked for."""
    found, as_it_was = apart(make_backbone(family, torch.float64, **ROTARY[family]), 7, 0)
    assert found < 5e-6
    assert as_it_was > 0.01


@pytest.fixture(scope="module")
def llama() -> Backbone:
    return make_backbone("llama")


@settings(max_examples=8, deadline=None)
@given(length=st.integers(1, 40), seed=st.integers(0, 99))
def test_any_length(llama, length, seed) -> None:
    found, _ = apart(llama, length, seed)
    assert found < 1e-4


@pytest.mark.parametrize("family", ["gpt2", "opt", "bloom"])
def test_other_models_are_refused(family) -> None:
    options = {"hidden_size": 32, "n_layer": 2, "n_head": 4} if family == "bloom" else {}
    backbone = make_backbone(family, **options)
    with pytest.raises(BackboneError, match="cannot be moved to later positions"):
        turned(backbone, prompt_of(backbone, 3, 0).keys, 3)
