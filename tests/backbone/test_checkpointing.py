"""Computing again instead of keeping: the same gradients from less memory, in evaluation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from test_families import ACCEPTED, THROUGH_THE_CACHE
from tiny_families import KINDS, batch, random_prompt, small_backbone, small_model
from torch import Tensor, nn
from transformers import AlbertConfig, AlbertForMaskedLM

from conftest import make_backbone, mini_tokens, random_rows
from foreword.axes.injection import Embeddings
from foreword.backbone import Backbone, Call, Decoding, Prompt, generate
from foreword.backbone.layout import Layout, Pair
from foreword.backbone.modules.checkpointing import layers_of
from foreword.backbone.prompts import cache
from foreword.errors import BackboneError
from foreword.methods import PrefixTuning
from foreword.methods.axes import MLP
from foreword.recipe import TrainingSpec
from foreword.training import train
from foreword.tuned.compose import compose

EVERY = {**ACCEPTED, **THROUGH_THE_CACHE}


def two_in_flight(backbone: Backbone, on: bool) -> list[Tensor]:
    """Two forwards with different prompts of different lengths, then the backwards of both."""
    losses, kept = [], []
    for length in (3, 5):
        rows, prompt = random_prompt(backbone, length)
        with backbone.recomputing(on):
            logits = backbone.logits(Call(batch(backbone, length, seed=length), prompt))
        losses.append(logits.log_softmax(-1).square().mean())
        kept.append(rows)
    for loss in losses:
        loss.backward()
    return [rows.grad for rows in kept if rows.grad is not None]


def count_runs(monkeypatch: pytest.MonkeyPatch, backbone: Backbone) -> list[nn.Module]:
    """Every run of a layer, again and again."""
    runs: list[nn.Module] = []
    for layer in layers_of(backbone.model):

        def counted(
            *given: Any, _layer: nn.Module = layer, _forward: Any = layer.forward, **named: Any
        ) -> Any:
            runs.append(_layer)
            return _forward(*given, **named)

        monkeypatch.setitem(vars(layer), "forward", counted)
    return runs


@pytest.mark.parametrize("family", KINDS)
def test_gradients_are_equal_and_layers_run_again(family, monkeypatch) -> None:
    backbone = small_backbone(family, torch.float64)
    runs = count_runs(monkeypatch, backbone)
    plain = two_in_flight(backbone, False)
    once = len(runs)
    again = two_in_flight(backbone, True)
    assert len(runs) == 3 * once == 6 * len(layers_of(backbone.model))
    for one, other in zip(plain, again, strict=True):
        assert one.abs().max() > 1e-4
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("family", EVERY)
def test_every_decoder_can_do_it(tiny_backbone, family, monkeypatch) -> None:
    backbone = tiny_backbone(family, **EVERY[family])
    runs = count_runs(monkeypatch, backbone)
    plain, again = two_in_flight(backbone, False), two_in_flight(backbone, True)
    assert len(runs) == 6 * len(layers_of(backbone.model))
    for one, other in zip(plain, again, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)


def test_under_bfloat16_arithmetic() -> None:
    """Autocast is off when the backward pass runs, and on when a layer is computed again."""
    backbone = small_backbone("llama")

    def gradient(on: bool) -> Tensor:
        rows, prompt = random_prompt(backbone, 3)
        with torch.autocast("cpu", torch.bfloat16), backbone.recomputing(on):
            loss = backbone.logits(Call(batch(backbone, 3), prompt)).float().square().mean()
        loss.backward()
        assert rows.grad is not None
        return rows.grad

    assert torch.equal(gradient(False), gradient(True))


def test_with_eager_attention() -> None:
    backbone = Backbone.wrap(small_model("llama"), mini_tokens(), attention="eager")
    plain, again = two_in_flight(backbone, False), two_in_flight(backbone, True)
    for one, other in zip(plain, again, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("family", ["gpt2", "llama", "bloom"])
def test_embeddings_that_a_decoder_reads(family) -> None:
    """Their keys and values leave the layers on the side, and BLOOM writes them into a cache."""
    backbone = small_backbone(family, torch.float64)
    injection = Embeddings(backbone)

    def gradient(on: bool) -> Tensor:
        rows = random_rows(backbone, 4)[:, : injection.width].requires_grad_()
        with backbone.recomputing(on):
            logits = backbone.logits(Call(batch(backbone, 4), injection.prompt_of(rows)))
        logits.log_softmax(-1).square().mean().backward()
        assert rows.grad is not None
        return rows.grad

    plain, again = gradient(False), gradient(True)
    assert plain.abs().max() > 1e-6
    torch.testing.assert_close(plain, again, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("family", ["bert", "t5", "bart"])
def test_embeddings_with_columns(family) -> None:
    backbone = small_backbone(family, torch.float64)
    g = backbone.geometry

    def gradient(on: bool) -> Tensor:
        rows = torch.ones(3, g.width, dtype=torch.float64, requires_grad=True)
        columns = range(g.vocabulary, g.vocabulary + 3)
        layout = Layout.of([[5, 6, 7, 8], [9, 5]], columns=columns, positions="keep")
        if g.kind == "encoder-decoder":
            layout = Layout.of([list(backbone.begin or ())] * 2, source=layout)
        with backbone.recomputing(on):
            logits = backbone.logits(Call(layout, Prompt(embeddings=rows)))
        logits.log_softmax(-1).square().mean().backward()
        assert rows.grad is not None
        return rows.grad

    plain, again = gradient(False), gradient(True)
    assert plain.abs().max() > 1e-6
    torch.testing.assert_close(plain, again, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("family", KINDS)
def test_dropout_stays_off(family) -> None:
    backbone = small_backbone(family)
    _, prompt = random_prompt(backbone, 3)
    layout = batch(backbone, 3)
    plain = backbone.logits(Call(layout, prompt))
    with backbone.recomputing():
        assert torch.equal(backbone.logits(Call(layout, prompt)), plain)
        assert not any(module.training for module in backbone.model.modules())


@pytest.mark.parametrize("family", [family for family in KINDS if family != "bert"])
def test_decoding_is_as_ever(family, monkeypatch) -> None:
    """Nothing is computed twice without a gradient."""
    backbone = small_backbone(family)
    _, prompt = random_prompt(backbone, 3)
    layout, how = batch(backbone, 3, side="left"), Decoding(max_new_tokens=4)
    expected = generate(backbone, Call(layout, prompt), how)
    runs = count_runs(monkeypatch, backbone)
    generate(backbone, Call(layout, prompt), how)
    once = len(runs)
    with backbone.recomputing():
        assert generate(backbone, Call(layout, prompt), how) == expected
    assert len(runs) == 2 * once


def test_a_cache_that_grows_is_written_once() -> None:
    backbone = make_backbone("llama")
    ids = torch.tensor([[3, 4, 5]])
    with torch.enable_grad(), backbone.recomputing():
        grown = backbone.model(ids, use_cache=True).past_key_values
    assert grown.get_seq_length() == 3
    assert not cache.is_read_only(grown)


def kept_bytes(backbone: Backbone, on: bool) -> int:
    """What a forward pass keeps for its backward pass, the model's own weights left out."""
    own = {p.untyped_storage().data_ptr() for p in backbone.model.parameters()}
    seen: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    _, prompt = random_prompt(backbone, 3)
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        backbone.recomputing(on),
    ):
        loss = backbone.logits(Call(batch(backbone, 3), prompt)).square().mean()
    assert loss.requires_grad
    return sum(seen.values())


@pytest.mark.parametrize("family", KINDS)
def test_less_is_kept(family) -> None:
    backbone = small_backbone(family)
    assert kept_bytes(backbone, True) < kept_bytes(backbone, False) / 2


def test_nothing_is_left_on_the_model() -> None:
    backbone = small_backbone("gpt2")
    layers = layers_of(backbone.model)
    with backbone.recomputing():
        assert all("forward" in vars(layer) for layer in layers)
    assert not any("forward" in vars(layer) for layer in layers)
    with pytest.raises(IndexError), backbone.recomputing():
        backbone.model(torch.tensor([[10**6]]))
    assert not any("forward" in vars(layer) for layer in layers)


def test_a_family_without_such_layers_is_refused() -> None:
    config = AlbertConfig(
        vocab_size=100,
        embedding_size=16,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=32,
    )
    backbone = Backbone.wrap(AlbertForMaskedLM(config), mini_tokens())
    refused = r"training\.gradient_checkpointing: backbone family 'albert'"
    with pytest.raises(BackboneError, match=refused), backbone.recomputing():
        pass
    with pytest.raises(BackboneError, match=refused):
        backbone.check_trainable(recomputing=True)
    backbone.check_trainable()


def test_one_module_at_two_depths_is_refused() -> None:
    """Its calls are counted, and a second computation would be counted as another layer."""
    model = small_model("llama")
    model.model.layers[1] = model.model.layers[0]
    backbone = Backbone.wrap(model, mini_tokens())
    with pytest.raises(BackboneError, match="one module stands for several of its layers"):
        backbone.check_trainable(recomputing=True)


def test_a_training_is_the_same(mini, monkeypatch) -> None:
    method = PrefixTuning(name="prefix-tuning", length=4, reparameterization=MLP(hidden=16))
    pairs = [Pair([5, 6, 7, 8], [9, 10]), Pair([11, 12], [13])]
    runs = count_runs(monkeypatch, mini)
    losses, counts = [], []
    for on in (False, True):
        torch.manual_seed(0)
        runs.clear()
        spec = TrainingSpec(
            steps=3,
            batch_size=2,
            best_by=None,
            gradient_checkpointing=on,
            savings={"last_layer": False},  # which needs that nothing is computed again
        )
        losses.append([step["loss"] for step in train(compose(mini, method), pairs, spec).steps])
        counts.append(len(runs))
    assert losses[0] == losses[1]
    assert counts[1] == 2 * counts[0]


def test_flex_trains_nothing_on_a_cpu(mini) -> None:
    """torch has no backward pass of it there, and says so only in the first step."""
    with pytest.raises(BackboneError, match=r"backbone\.attention: 'flex' has no backward pass"):
        replace(mini, attention="flex").check_trainable()


def test_an_attention_that_a_family_cannot_use_is_refused() -> None:
    with pytest.raises(BackboneError, match=r"backbone\.attention: .*'bloom' cannot use 'eager'"):
        Backbone.wrap(small_model("bloom"), mini_tokens(), attention="eager")
    assert Backbone.wrap(small_model("bloom"), mini_tokens()).attention == "own"
    assert small_backbone("t5").attention == "sdpa"
