"""LoRA: what it computes, by its definition; which layers it takes; its dropout."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from axes.deltas.moving import logits, louder, method, texts
from conftest import assert_close
from families.catalogue import wrapped
from foreword.axes.deltas import LoRA
from foreword.backbone import Backbone, Call
from foreword.errors import UserError
from foreword.tuned import TunedModel
from foreword.tuned.compose import compose


def with_weights_by_hand(backbone: Backbone, delta: LoRA, factor: float) -> None:
    """Put W + factor · B A into a backbone's own weights; GPT-2's are the other way round."""
    named, tensors = dict(backbone.model.named_parameters()), delta.tensors()
    with torch.no_grad():
        for name in delta.chosen:
            update = tensors[f"{name}.lora_B.weight"] @ tensors[f"{name}.lora_A.weight"]
            turned = backbone.model.config.model_type == "gpt2"
            named[f"{name}.weight"].add_(factor * (update.T if turned else update))


@pytest.mark.parametrize("family", ["gpt2", "llama", "bert", "t5", "bart"])
def test_it_adds_a_product_to_weights(family: str) -> None:
    backbone = wrapped(family)
    delta = LoRA(backbone, rank=3, alpha=6.0, targets=["all"])
    louder(delta)
    assert delta.backbone is not None
    layout = texts(backbone)
    with torch.no_grad():
        found = delta.backbone.logits(Call(layout))
        merged = delta.weights()
        other = wrapped(family)
        with_weights_by_hand(other, delta, 6.0 / 3)
        assert_close(
            found[layout.attention_mask], other.logits(Call(layout))[layout.attention_mask]
        )
    theirs = dict(other.model.named_parameters())
    for name, weight in merged.items():
        assert_close(weight, theirs[name])


@settings(max_examples=10, deadline=None)
@given(rank=st.integers(1, 8), alpha=st.floats(0.5, 64))
def test_how_many_numbers_move_and_how_far(rank: int, alpha: float) -> None:
    delta = LoRA(_GPT2, rank=rank, alpha=alpha)
    louder(delta)
    assert sum(t.numel() for t in delta.tensors().values()) == 3 * rank * (32 + 96)
    with torch.no_grad():
        weight = _GPT2.model.transformer.h[0].attn.c_attn.weight
        change = delta.weights()["transformer.h.0.attn.c_attn.weight"] - weight
        a, b = (delta.tensors()[f"transformer.h.0.attn.c_attn.lora_{side}.weight"] for side in "AB")
        assert_close(change, alpha / rank * (b @ a).T)
    assert torch.linalg.matrix_rank(change) <= rank


_GPT2 = wrapped("gpt2")


def test_layers_by_name() -> None:
    delta = LoRA(_GPT2, targets=["mlp.c_proj", "c_fc"])
    assert delta.chosen == [
        f"transformer.h.{i}.mlp.{end}" for i in range(3) for end in ("c_fc", "c_proj")
    ]
    with pytest.raises(UserError, match=r"is named 'c_atn' \(did you mean 'c_attn'\?\)"):
        LoRA(_GPT2, targets=["c_atn"])
    with pytest.raises(UserError, match=r"no linear layer of .* is named 'wte'"):
        LoRA(_GPT2, targets=["wte"])


def test_a_family_that_peft_does_not_know() -> None:
    assert LoRA(wrapped("distilbert")).chosen[:2] == [
        "distilbert.transformer.layer.0.attention.q_lin",
        "distilbert.transformer.layer.0.attention.v_lin",
    ]


def test_under_a_head_what_it_does_not_read_stays() -> None:
    """BERT's language-model head has a linear layer, which no classification depends on."""
    backbone = wrapped("bert")
    names = {head: LoRA(backbone, targets=["all"], head=head).chosen for head in (True, False)}
    assert set(names[False]) - set(names[True]) == {"cls.predictions.transform.dense"}


def test_dropout_acts_in_training_steps_alone() -> None:
    backbone = wrapped("gpt2")
    model = compose(backbone, method("lora", dropout=0.5))
    louder(model.delta)
    layout = model.placement.layout([[5, 6, 7]], [[8, 9]])
    assert not torch.equal(model(layout), model(layout))
    with torch.no_grad():
        assert torch.equal(model(layout), model(layout))
    model.eval()
    assert torch.equal(model(layout), model(layout))
    assert not any(m.training for n, m in backbone.model.named_modules())


def test_without_peft_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(
        "foreword.axes.deltas.lora.find_spec", lambda name: None if name == "peft" else there(name)
    )
    with pytest.raises(UserError, match=r"pip install 'foreword\[lora\]'"):
        LoRA(_GPT2)


def test_several_on_one_backbone() -> None:
    """Each is a copy: they do not see one another, nor does the backbone see them."""
    layout = texts(_GPT2)
    models: list[TunedModel] = [compose(_GPT2, method("lora")) for _ in range(2)]
    with torch.no_grad():
        plain = logits(models[0].bare(), layout)
        louder(models[1].delta)
        assert torch.equal(logits(models[0], layout), plain)
        assert not torch.equal(logits(models[1], layout), plain)
        assert torch.equal(_GPT2.logits(Call(layout))[layout.attention_mask], plain)
