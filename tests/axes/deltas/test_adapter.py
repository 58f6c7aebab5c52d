"""Bottleneck adapters stand where Houlsby et al. 2019 put them, and cost what they say."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config

from axes.deltas.moving import louder, method
from conftest import assert_close, mini_tokens
from families.catalogue import wrapped
from foreword.axes.deltas import Adapter
from foreword.backbone import Backbone, Call
from foreword.backbone.layout import Layout
from foreword.errors import UserError
from foreword.tuned.compose import compose

IDS = [3, 4, 5, 6, 7]


def added(delta: Adapter, name: str, x: torch.Tensor) -> torch.Tensor:
    """What an adapter makes of x, by the paper's formula."""
    weights = {
        key.removeprefix(f"{name}.adapter."): tensor
        for key, tensor in delta.tensors().items()
        if key.startswith(f"{name}.adapter.")
    }
    inner = x @ weights["down.weight"].T + weights["down.bias"]
    return x + torch.relu(inner) @ weights["up.weight"].T + weights["up.bias"]


def test_on_gpt2_by_hand() -> None:
    """Before the residual of a layer that normalises what it reads."""
    backbone = wrapped("gpt2")
    delta = Adapter(backbone, size=3, activation="relu", layer_norms=False)
    louder(delta)
    body = backbone.model.transformer
    with torch.no_grad():
        h = body.wte(torch.tensor([IDS])) + body.wpe(torch.arange(len(IDS)))
        for i, block in enumerate(body.h):
            attended = block.attn(block.ln_1(h))[0]
            h = h + added(delta, f"transformer.h.{i}.attn.c_proj", attended)
            h = h + added(delta, f"transformer.h.{i}.mlp.c_proj", block.mlp(block.ln_2(h)))
        assert delta.backbone is not None
        found = delta.backbone.hidden(Call(Layout.of([IDS])))
        assert_close(found, body.ln_f(h))


def test_on_bert_by_hand() -> None:
    """Before the residual and the norm of a layer that normalises what it gives."""
    backbone = wrapped("bert")
    delta = Adapter(backbone, size=3, activation="relu", layer_norms=False)
    louder(delta)
    body = backbone.model.bert
    with torch.no_grad():
        h = body.embeddings(torch.tensor([IDS]))
        for i, layer in enumerate(body.encoder.layer):
            name = f"bert.encoder.layer.{i}"
            out = layer.attention.output
            attended = added(
                delta, f"{name}.attention.output.dense", out.dense(layer.attention.self(h)[0])
            )
            h = out.LayerNorm(attended + h)
            written = added(
                delta, f"{name}.output.dense", layer.output.dense(layer.intermediate(h))
            )
            h = layer.output.LayerNorm(written + h)
        assert delta.backbone is not None
        assert_close(delta.backbone.hidden(Call(Layout.of([IDS]))), h)


def test_on_an_encoder_decoder_each_attention_has_one() -> None:
    names = [ending.name for ending in wrapped("t5").endings()]
    block = "decoder.block.2.layer"
    assert names[-3:] == [
        f"{block}.0.SelfAttention.o",
        f"{block}.1.EncDecAttention.o",
        f"{block}.2.DenseReluDense.wo",
    ]
    assert names[:2] == ["encoder.block.0.layer.0.SelfAttention.o", names[1]]
    assert names[1].startswith("encoder.block.0.layer.1.")
    assert len(names) == 2 * 2 + 3 * 3


@pytest.mark.parametrize("family", ["gpt2", "llama", "bert", "t5"])
def test_layer_norms_move_too(family: str) -> None:
    backbone = wrapped(family)
    with_norms = set(Adapter(backbone).tensors())
    without = set(Adapter(backbone, layer_norms=False).tensors())
    norms = {
        f"{name}.{key}"
        for name, module in backbone.model.named_modules()
        if isinstance(module, nn.LayerNorm) or type(module).__name__.endswith("Norm")
        for key, _ in module.named_parameters()
    }
    assert with_norms - without == norms
    assert without < with_norms


@settings(max_examples=20, deadline=None)
@given(reduction=st.floats(0.25, 200), layer_norms=st.booleans())
def test_how_many_numbers_move(reduction: float, layer_norms: bool) -> None:
    backbone = _GPT2
    options = {"reduction": reduction, "layer_norms": layer_norms}
    model = compose(backbone, method("adapter", **options))
    d, layers = 32, 3
    size = max(1, round(d / reduction))
    norms = 2 * d * (2 * layers + 1) if layer_norms else 0
    assert model.trained_parameters == 2 * layers * (2 * d * size + d + size) + norms
    assert model.trained_share == model.trained_parameters / sum(
        p.numel() for p in backbone.model.parameters()
    )


_GPT2 = wrapped("gpt2")


@pytest.mark.parametrize(("reduction", "share"), [(512, 0.001), (9.5, 0.03)])
def test_published_budgets_on_gpt2_medium(reduction: float, share: float) -> None:
    """0.1 % and 3 %, the adapters that Li & Liang 2021 compare with; no weight is needed for it."""
    config = GPT2Config(n_embd=1024, n_layer=24, n_head=16)
    with torch.device("meta"):
        whole = sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
    size = round(1024 / reduction)
    adapters = 48 * (2 * 1024 * size + 1024 + size)
    norms = 49 * 2 * 1024
    assert whole == 354_823_168
    assert (adapters + norms) / whole == pytest.approx(share, rel=0.03)


def test_its_own_type_on_a_backbone_in_half_precision() -> None:
    backbone = wrapped("gpt2", torch.bfloat16)
    delta = Adapter(backbone, size=2, layer_norms=False)
    assert {tensor.dtype for tensor in delta.tensors().values()} == {torch.float32}
    assert delta.backbone is not None
    layout = Layout.of([IDS])
    with torch.no_grad():
        expected = backbone.hidden(Call(layout))
        assert torch.equal(delta.backbone.hidden(Call(layout)), expected)


def test_a_plain_model_has_no_place_for_them() -> None:
    with pytest.raises(UserError, match="cannot be put into its weights; LoRA can"):
        Adapter(_GPT2).weights()


def test_experts_are_refused_with_the_reason() -> None:
    with pytest.raises(UserError, match="has no place for adapters: its layers hand their tokens"):
        Adapter(wrapped("switch_transformers"))


def test_tracing_leaves_nothing_behind() -> None:
    backbone = Backbone.wrap(wrapped("gpt2").model, mini_tokens())
    backbone.endings()
    assert not any(module._forward_hooks for module in backbone.model.modules())
