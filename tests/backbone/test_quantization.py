"""Quantised backbones: loaded by transformers' configs, trained through, recorded and compared.

bitsandbytes quantises the layers of every family, torchao's configs those of nn.Linear alone.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_families import batch, random_prompt, small_model

from conftest import mini_tokens
from foreword.artifacts.artifact import load_model, save_artifact
from foreword.artifacts.card import quantised_as
from foreword.backbone import Backbone, Call, Decoding, bundled_backbones, generate, load_backbone
from foreword.backbone.layout import Layout, Pair
from foreword.backbone.weights.hashing import hash_module
from foreword.backbone.weights.quantization import is_quantised
from foreword.errors import BackboneError, RecipeError
from foreword.methods import FineTuning, PrefixTuning
from foreword.methods.axes import Table
from foreword.recipe import TaskId, TrainingSpec, parse_recipe
from foreword.runs.given import as_the_recipe_says
from foreword.training import train
from foreword.tuned import TunedModel
from foreword.tuned.compose import compose
from quantised import EIGHT, FOUR, WEIGHTS, needs, saved, torchao

MINI = bundled_backbones()["foreword/mini"]


ACTIVATIONS = torchao("Int8DynamicActivationInt8WeightConfig")
WIDE = {
    "gpt2": {"n_embd": 64},
    "llama": {"hidden_size": 64, "intermediate_size": 128},
    "t5": {"d_model": 64},
}
WAYS = {"8 bits": EIGHT, "4 bits": FOUR, "torchao": WEIGHTS}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Small checkpoints of two families, with the bundled tokenizer."""
    made = {}
    for family, width in WIDE.items():
        folder = tmp_path_factory.mktemp(family)
        # So small that rounding is not all that is left of it.
        made[family] = str(saved(small_model(family, **width), folder, scale=0.3))
    return made


def load(folder: str, quantization: dict[str, Any] | None, **options: Any) -> Backbone:
    if quantization:
        needs(quantization)
    return load_backbone(folder, quantization=quantization, **options)


CASES = [
    (family, way)
    for family in ("llama", "gpt2", "t5")
    for way in WAYS
    if not (family == "gpt2" and way == "torchao")
]


@pytest.mark.parametrize(("family", "way"), CASES)
def test_close_to_the_unquantised_one(folders, family, way) -> None:
    plain, small = load(folders[family], None), load(folders[family], WAYS[way])
    _, prompt = random_prompt(plain, 3)
    layout = batch(plain, 3)
    with torch.no_grad():
        expected, found = (one.logits(Call(layout, prompt)) for one in (plain, small))
    gap = (found - expected).abs().mean() / expected.abs().mean()
    assert 0 < gap < (0.6 if way == "4 bits" else 0.1)
    assert small.sha256 == plain.sha256
    assert small.quantization == WAYS[way]
    assert plain.quantization is None
    assert any(map(is_quantised, small.model.parameters()))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("way", WAYS)
def test_a_prompt_is_trained_through_it_in_float32(folders, way, dtype) -> None:
    backbone = load(folders["llama"], WAYS[way], dtype=dtype)
    model = prefix(backbone)
    before = hash_module(backbone.model)
    pairs = [Pair([5, 6, 7, 8], [9, 10]), Pair([11, 12], [13])]
    spec = TrainingSpec(steps=12, batch_size=2, learning_rate=0.1, best_by=None)
    losses = [step["loss"] for step in train(model, pairs, spec).steps]
    assert losses[-1] < losses[0] - 0.5
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert hash_module(backbone.model) == before
    layout = model.arrange([[5, 6, 7], [8]], side="left")
    assert len(model.answers(layout, Decoding(max_new_tokens=3))) == 2


@pytest.mark.parametrize("way", WAYS)
def test_gradients_survive_checkpointing(folders, way) -> None:
    backbone = load(folders["llama"], WAYS[way])

    def gradient(on: bool) -> torch.Tensor:
        rows, prompt = random_prompt(backbone, 3)
        with backbone.recomputing(on):
            loss = backbone.logits(Call(batch(backbone, 3), prompt)).square().mean()
        loss.backward()
        assert rows.grad is not None
        return rows.grad

    assert torch.equal(gradient(False), gradient(True))


def test_its_own_weights_do_not_move(folders) -> None:
    small = load(folders["llama"], EIGHT)
    with pytest.raises(BackboneError, match=r"^backbone\.quantization: quantised weights do not"):
        compose(small, FineTuning(name="fine-tuning"))


def test_the_gradient_is_that_of_the_dequantised_model(folders) -> None:
    small = load(folders["llama"], FOUR)
    rows, prompt = random_prompt(small, 3)
    layout = batch(small, 3)
    small.logits(Call(layout, prompt)).square().mean().backward()
    found = rows.grad
    small.model.dequantize()
    whole = Backbone.wrap(small.model, mini_tokens())
    rows, prompt = random_prompt(whole, 3)
    whole.logits(Call(layout, prompt)).square().mean().backward()
    assert found is not None
    assert rows.grad is not None
    torch.testing.assert_close(found, rows.grad, rtol=0.05, atol=0.02 * rows.grad.abs().max())


def test_in_8_bits_a_batch_mate_changes_a_logit_unless_told_otherwise() -> None:
    """LLM.int8() leaves those columns whole that have an outlier anywhere in the batch."""
    ids = [[5, 6, 7, 800, 900], [1000, 2000, 3000, 17, 3, 4, 5]]
    gaps = []
    for way in (EIGHT, {**EIGHT, "llm_int8_threshold": 0.0}):
        backbone = load("foreword/mini", way)
        with torch.no_grad():
            alone = backbone.logits(Call(Layout.of(ids[:1])))[0]
            together = backbone.logits(Call(Layout.of(ids)))[0, : len(ids[0])]
        gaps.append((alone - together).abs().max().item())
    assert gaps[0] > 0.01
    assert gaps[1] < 1e-4


def test_a_method_that_cuts_gradients_off_trains_nothing(folders) -> None:
    """torchao's quantised activations have no gradient, and what goes around them would pass."""
    backbone = load(folders["llama"], ACTIVATIONS)
    with pytest.raises(BackboneError, match=r"backbone\.quantization: nothing can be trained"):
        backbone.check_trainable()
    spec = TrainingSpec(steps=1, batch_size=1)
    with pytest.raises(BackboneError, match="nothing can be trained"):
        train(prefix(backbone), [Pair([5], [6])], spec)
    assert generate(backbone, Call(Layout.of([[5, 6]])), Decoding(max_new_tokens=2))


@pytest.mark.parametrize("way", WAYS)
def test_the_others_do_not(folders, way) -> None:
    load(folders["llama"], WAYS[way]).check_trainable()


def test_a_method_that_finds_nothing_to_quantise_is_refused(folders) -> None:
    with pytest.raises(BackboneError, match=r"'torchao' quantised no weight of .* \(gpt2\)"):
        load(folders["gpt2"], WEIGHTS)


@pytest.mark.parametrize("way", ["8 bits", "4 bits"])
def test_stored_quantised_it_loads_so(folders, tmp_path, way) -> None:
    small = load(folders["llama"], WAYS[way])
    stored = tmp_path / "stored"
    small.model.save_pretrained(stored)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(MINI / file, stored / file)
    again = load_backbone(str(stored))
    assert again.quantization is not None
    assert again.quantization["quant_method"] == "bitsandbytes"
    assert again.sha256 != small.sha256
    layout = batch(small, 0)
    with torch.no_grad():
        torch.testing.assert_close(
            again.logits(Call(layout)), small.logits(Call(layout)), rtol=1e-4, atol=1e-4
        )
    assert load_backbone(str(stored), quantization=again.quantization).sha256 == again.sha256
    with pytest.raises(BackboneError, match=r"backbone\.quantization: .*is stored quantised"):
        load_backbone(str(stored), quantization={**WAYS[way], "llm_int8_threshold": 1.0})
    recipe_section = parse_recipe(recipe(name=str(stored))).backbone
    as_the_recipe_says(again, recipe_section, None)


def prefix(backbone: Backbone) -> TunedModel:
    return compose(
        backbone,
        PrefixTuning(name="prefix-tuning", length=4, reparameterization=Table(std=0.5)),
    )


def test_an_artifact_records_it_and_warns_of_another(folders, tmp_path) -> None:
    backbone = load(folders["llama"], FOUR, dtype="bfloat16")
    model = prefix(backbone)
    method = PrefixTuning(name="prefix-tuning", length=4, reparameterization=Table())
    task = TaskId(input="{text}", target="{reference}")
    folder = tmp_path / "artifact"
    manifest = save_artifact(folder, model, name="four", method=method, task=task)
    assert manifest.backbone.quantization == FOUR
    assert manifest.backbone.dtype == "bfloat16"
    assert "bitsandbytes" in manifest.versions
    assert manifest.backbone.attention == "sdpa"
    assert manifest.backbone.sha256 == load_backbone(folders["llama"]).sha256
    _, same = load_model(folder)
    assert same.backbone.quantization == FOUR
    said = r"quantised by bitsandbytes load_in_4bit=True .*, here it is not quantised"
    with pytest.warns(UserWarning, match=said):
        _, other = load_model(folder, quantization={})
    assert other.backbone.quantization is None
    assert torch.equal(other.rows(), same.rows())


def test_in_words() -> None:
    assert quantised_as(EIGHT) == "quantised by bitsandbytes load_in_8bit=True"
    assert quantised_as(None) == "not quantised"


@pytest.mark.parametrize(
    ("quantization", "message"),
    [
        ({"quant_method": "bitsandbite"}, r"quant_method: 'bitsandbite'.*did you mean 'bitsandby"),
        ({}, None),
        ({"quant_method": "fp8"}, "GPU"),
        ({"quant_method": "awq"}, "pre-quantized"),
        ({"quant_method": "gptq", "bits": 4}, "optimum"),
        ({"quant_method": "bitsandbytes", "x": object()}, "plain values"),
    ],
)
def test_mistakes_that_need_no_package(folders, quantization, message) -> None:
    if message is None:
        assert load_backbone(folders["llama"], quantization=quantization).quantization is None
        return
    with pytest.raises(BackboneError, match=rf"^backbone\.quantization.*{message}"):
        load_backbone(folders["llama"], quantization=quantization)


@pytest.mark.parametrize(
    ("quantization", "message"),
    [
        ({"quant_method": "bitsandbytes"}, "give load_in_8bit: true or load_in_4bit: true"),
        (
            {**FOUR, "bnb_4bit_quant_tpye": "fp4"},
            r"\.bnb_4bit_quant_tpye: 'bitsandbytes' has no such option \(did you mean 'bnb_4bit_qu",
        ),
        ({**FOUR, "bnb_4bit_quant_type": 3}, "bnb_4bit_quant_type must be a string"),
        ({"quant_method": "torchao"}, r"\.quant_type: is missing"),
        (torchao("Int9WeightOnlyConfig"), "Int9WeightOnlyConfig"),
    ],
)
def test_mistakes_in_the_options(folders, quantization, message) -> None:
    needs(quantization)
    with pytest.raises(BackboneError, match=rf"^backbone\.quantization.*{message}"):
        load_backbone(folders["llama"], quantization=quantization)


@pytest.mark.parametrize("way", WAYS)
def test_a_type_that_cannot_be_quantised(folders, way, capfd) -> None:
    needs(WAYS[way])
    if way == "8 bits":
        pytest.skip("bitsandbytes quantises float64 to 8 bits")
    with pytest.raises(BackboneError, match=r"loaded as float64, cannot be quantised like this: "):
        load_backbone(folders["llama"], quantization=WAYS[way], dtype="float64")
    assert "Traceback" not in capfd.readouterr().err


def test_a_package_that_is_missing(folders, monkeypatch) -> None:
    from foreword.backbone.weights import quantization

    monkeypatch.setattr(quantization, "find_spec", lambda name: None)
    said = r"'bitsandbytes' is not installed here; pip install 'foreword\[quantize\]'"
    with pytest.raises(BackboneError, match=said):
        load_backbone(folders["llama"], quantization=FOUR)


def test_it_says_nothing_at_every_call(folders, caplog) -> None:
    backbone = load(folders["llama"], EIGHT)
    with caplog.at_level(logging.WARNING), torch.no_grad():
        backbone.logits(Call(batch(backbone, 0)))
    assert not caplog.records


def recipe(**backbone: Any) -> dict[str, Any]:
    """A recipe with this backbone section."""
    data = {"format": "jsonl", "train": "foreword/fieldguide/train"}
    return {
        "version": 1,
        "name": "small",
        "backbone": {"name": "foreword/mini", **backbone},
        "task": {"data": data},
        "method": "prefix-tuning",
    }


def test_in_a_recipe() -> None:
    section = parse_recipe(recipe(quantization=FOUR), ["backbone.quantization.x=[1]"]).backbone
    assert section.quantization == {**FOUR, "x": [1]}
    for wrong in ("4bit", {}, {"load_in_4bit": True}, {"quant_method": 4}, [FOUR]):
        with pytest.raises(RecipeError, match=r"backbone\.quantization: expected a mapping with"):
            parse_recipe(recipe(quantization=wrong))


def test_a_backbone_given_must_be_quantised_as_the_recipe_says(mini) -> None:
    said = parse_recipe(recipe(quantization=FOUR)).backbone
    with pytest.raises(RecipeError, match=r"backbone\.quantization: the recipe says"):
        as_the_recipe_says(mini, said, None)
    with pytest.raises(RecipeError, match=r"backbone\.attention: the recipe says 'eager'"):
        as_the_recipe_says(mini, parse_recipe(recipe(attention="eager")).backbone, None)
    as_the_recipe_says(mini, parse_recipe(recipe(attention="sdpa")).backbone, None)


def test_a_module_without_a_folder_has_a_hash(folders) -> None:
    small = load(folders["llama"], WEIGHTS)
    found = Backbone.wrap(small.model, mini_tokens())
    assert found.sha256 == Backbone.wrap(small.model, mini_tokens()).sha256
    assert found.sha256 != small.sha256
    assert Path(small.name).is_dir()
