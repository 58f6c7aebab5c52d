"""A tokenizer's hash is computed once, and anew where the tokenizer was changed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import normalizers, pre_tokenizers

import foreword
from conftest import mini_tokens, tiny_model
from foreword.backbone import Backbone, Tokens
from foreword.backbone.text import tokenizing
from foreword.methods import PTuningV2
from stored_prompts import TABLE, labels, soft, store, writes


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The tokenizers whose hash is computed, again and again."""
    found: list[Any] = []
    compute = tokenizing._hashed

    def watched(tokenizer: Any) -> str:
        found.append(tokenizer)
        return compute(tokenizer)

    monkeypatch.setattr(tokenizing, "_hashed", watched)
    return found


CHANGES: dict[str, Callable[[Any], object]] = {
    "a token": lambda t: t.add_tokens(["<new>"]),
    "a special token": lambda t: t.add_special_tokens({"mask_token": "[MASK]"}),
    "a special token of the vocabulary": lambda t: setattr(t, "unk_token", "a"),
    "the chat template": lambda t: setattr(t, "chat_template", "{{ messages }}"),
    "the normalizer": lambda t: setattr(t.backend_tokenizer, "normalizer", normalizers.Lowercase()),
    "the pre-tokenizer": lambda t: setattr(
        t.backend_tokenizer, "pre_tokenizer", pre_tokenizers.ByteLevel(add_prefix_space=True)
    ),
    "dropout of merges": lambda t: setattr(t.backend_tokenizer.model, "dropout", 0.1),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_gives_another_hash(change: str, hashed: list[Any]) -> None:
    tokenizer = copy.deepcopy(mini_tokens().tokenizer)
    before = tokenizing.sha256(tokenizer)
    assert tokenizing.sha256(tokenizer) == before
    assert hashed == [tokenizer]
    CHANGES[change](tokenizer)
    after = tokenizing.sha256(tokenizer)
    assert after != before
    assert after == tokenizing.sha256(tokenizer) == tokenizing._hashed(tokenizer)
    assert hashed == [tokenizer] * 3


def test_cutting_and_padding_are_no_change(hashed: list[Any]) -> None:
    tokenizer = copy.deepcopy(mini_tokens().tokenizer)
    before = tokenizing.sha256(tokenizer)
    tokenizer(["a b c", "a"], truncation=True, max_length=2, padding=True)
    assert tokenizing.sha256(tokenizer) == before
    assert len(hashed) == 1


def test_a_tokenizer_that_is_gone_is_forgotten() -> None:
    tokenizer = copy.deepcopy(mini_tokens().tokenizer)
    tokenizing.sha256(tokenizer)
    before = len(tokenizing._hashes)
    del tokenizer
    assert len(tokenizing._hashes) == before - 1


def test_prompts_on_a_shared_backbone_measure_nothing_again(
    tmp_path: Path, hashed: list[Any]
) -> None:
    """Neither the tokenizer's hash nor the width of the states, which takes a forward pass."""
    tokens = Tokens(copy.deepcopy(mini_tokens().tokenizer))
    backbone = Backbone.wrap(tiny_model("gpt2"), tokens)
    v2 = PTuningV2(name="p-tuning-v2", length=2, reparameterization=TABLE)
    folders = [
        store(tmp_path / "soft", backbone, soft(), writes()),
        store(tmp_path / "head", backbone, v2, labels()),
    ]
    passes: list[Any] = []
    backbone.model.register_forward_hook(lambda *_: passes.append(1))
    backbone.model.base_model.register_forward_hook(lambda *_: passes.append(1))
    for _ in range(3):
        for folder in folders:
            foreword.load(folder, backbone=backbone)
    assert hashed == [backbone.tokens.tokenizer]
    assert passes == []
