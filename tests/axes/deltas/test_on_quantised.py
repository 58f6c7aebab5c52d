"""What moves beside quantised weights: LoRA, adapters and biases on backbones of 4 and 8 bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

import foreword
from axes.deltas.moving import logits, louder, method
from conftest import make_backbone, one_of_each, tiny_model
from foreword.artifacts.artifact import load_model, save_artifact
from foreword.backbone import Backbone, Call, load_backbone
from foreword.backbone.layout import Layout, Pair
from foreword.backbone.modules.whole import plain_model, quantised_layers
from foreword.backbone.weights.quantization import is_quantised, tensors_of, whole
from foreword.errors import BackboneError
from foreword.recipe import TaskId, TrainingSpec
from foreword.training import train
from foreword.tuned import TunedModel
from foreword.tuned.compose import compose
from quantised import EIGHT, FOUR, TWICE, WEIGHTS, needs, saved

WIDE: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 64, "n_layer": 2},
    "llama": {"hidden_size": 64, "intermediate_size": 128},
}
WAYS: dict[str, dict[str, Any]] = {
    "nf4": FOUR,
    "nf4, scales quantised": TWICE,
    "nf4, kept as bfloat16": {**FOUR, "bnb_4bit_quant_storage": "bfloat16"},
    "8 bits": {**EIGHT, "llm_int8_threshold": 0.0},
    "torchao": WEIGHTS,
}
CASES = [(f, w) for f in WIDE for w in WAYS if (f, w) != ("gpt2", "torchao")]
TASK = TaskId(input="{text}", target="{reference}")
LAYOUT = Layout.of([[5, 81, 300, 27, 9], [7, 8]])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {}
    for family, width in WIDE.items():
        folder = tmp_path_factory.mktemp(family)
        made[family] = saved(tiny_model(family, **width), folder, scale=0.5)
    return made


def load(folder: Path, way: str | None, **options: Any) -> Backbone:
    if way is not None:
        needs(WAYS[way])
        options["quantization"] = WAYS[way]
    return load_backbone(str(folder), **options)


def lora(backbone: Backbone, **options: Any) -> TunedModel:
    given = {"rank": 3, "alpha": 6.0, "dropout": 0.0, "targets": ["all"], **options}
    model = compose(backbone, method("lora", **given))
    louder(model.delta)
    return model


def stored(folder: Path, model: TunedModel, options: Any) -> Path:
    save_artifact(folder, model, name="it", method=options, task=TASK)
    return folder


def by_hand(model: TunedModel, folder: Path) -> Backbone:
    """The checkpoint with what `whole` makes of quantised weights, and the product of B and A."""
    plain, tensors = load_backbone(str(folder)), model.delta.tensors()
    assert model.delta.origin is not None
    with torch.no_grad():
        for name, layer in quantised_layers(model.delta.origin.model):
            weight = whole(layer).float()
            if f"{name}.lora_A.weight" in tensors:
                a, b = (tensors[f"{name}.lora_{side}.weight"] for side in "AB")
                weight = weight + 2.0 * (b @ a)
            own = plain.model.get_submodule(name)
            own.weight.copy_(weight.T if isinstance(own, Conv1D) else weight)
    return plain


@pytest.mark.parametrize(("family", "way"), CASES)
def test_lora_adds_its_product_to_what_the_layers_compute_with(family, way, folders) -> None:
    """8 bits of bitsandbytes round the states too, by a 127th of the largest."""
    model = lora(load(folders[family], way))
    plain = by_hand(model, folders[family])
    with torch.no_grad():
        found, expected = logits(model, LAYOUT), plain.logits(Call(LAYOUT))[LAYOUT.attention_mask]
    tolerance = 0.05 if way == "8 bits" else 1e-5
    assert (found - expected).abs().max() < tolerance * expected.abs().max()


@pytest.mark.parametrize(("family", "way"), CASES)
def test_its_gradient_is_that_beside_whole_weights(family, way, folders) -> None:
    model = lora(load(folders[family], way))
    assert model.delta.origin is not None
    whole_model = plain_model(model.delta.origin.model, {})
    assert not any(map(is_quantised, whole_model.parameters()))
    beside = lora(Backbone.wrap(whole_model, model.backbone.tokens))
    beside.delta.load({name: p.detach() for name, p in model.delta.tensors().items()})
    for one in (model, beside):
        one(one.arrange([[5, 6, 7], [8, 9]], [[3, 4], [5]])).mean().backward()
    expected = beside.delta.tensors()
    for name, parameter in model.delta.tensors().items():
        assert parameter.dtype == torch.float32
        found, other = parameter.grad, expected[name].grad
        assert found is not None
        assert other is not None
        gap = (found - other).norm() / other.norm()
        assert gap < (0.2 if way == "8 bits" else 1e-4), name


@pytest.mark.parametrize("way", ["nf4, scales quantised", "8 bits", "torchao"])
def test_a_copy_shares_all_of_the_quantised_memory(way, folders) -> None:
    backbone = load(folders["llama"], way)
    lora(backbone)  # a pass moves the scales of 8 bits
    copied = backbone.copied()

    def places(model: torch.nn.Module) -> set[int]:
        tensors = [*model.parameters(), *model.buffers()]
        tensors += [one for module in model.modules() for one in tensors_of(module)]
        return {id(tensor) for tensor in tensors}

    assert places(copied.model) == places(backbone.model)


LEARNED = [
    (name, way, dtype)
    for name in ("lora", "adapter", "bitfit")
    for way in ("nf4", "8 bits")
    for dtype in ("float32", "bfloat16")
]


@pytest.mark.parametrize(("name", "way", "dtype"), one_of_each(LEARNED, 2))
def test_it_learns_and_comes_back_from_its_artifact(name, way, dtype, folders, tmp_path) -> None:
    backbone = load(folders["gpt2"], way, dtype=dtype)
    options = method(name)
    model = compose(backbone, options)
    pairs = [Pair([5, 6, 7, 8], [9, 10]), Pair([11, 12], [13])]
    spec = TrainingSpec(steps=12, batch_size=2, learning_rate=0.02, best_by=None)
    losses = [step["loss"] for step in train(model, pairs, spec).steps]
    assert losses[-1] < losses[0] - 0.3
    stored(tmp_path / "it", model, options)
    manifest, again = load_model(tmp_path / "it")
    assert manifest.backbone.quantization == WAYS[way]
    for key, tensor in model.delta.tensors().items():
        assert torch.equal(again.delta.tensors()[key].to(tensor.dtype), tensor), key
    with torch.no_grad():
        assert torch.equal(logits(again, LAYOUT), logits(model, LAYOUT))


@pytest.mark.parametrize("name", ["fine-tuning", "fine-tuning-top"])
def test_quantised_weights_do_not_move_themselves(name, folders) -> None:
    backbone = load(folders["llama"], "nf4")
    with pytest.raises(BackboneError, match=r"quantised weights do not move, .* lora, adapter, or"):
        compose(backbone, method(name))


def test_a_prompt_with_lora_beside_it(folders) -> None:
    backbone = load(folders["llama"], "nf4")
    model = compose(backbone, method("prefix-tuning", length=2, delta={"kind": "lora"}))
    model(model.arrange([[5, 6]], [[3]])).mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize(("way", "family"), one_of_each([(w, f) for f, w in CASES], 1))
def test_a_plain_model_answers_as_the_artifact_does(family, way, folders, tmp_path) -> None:
    options = method("lora", rank=3, alpha=6.0, targets=["all"])
    model = lora(load(folders[family], way))
    stored(tmp_path / "it", model, options)
    notes = foreword.export_model(tmp_path / "it", tmp_path / "plain")
    plain, said = AutoModelForCausalLM.from_pretrained(tmp_path / "plain", output_loading_info=True)
    assert not said["missing_keys"] | said["unexpected_keys"]
    assert not hasattr(plain.config, "quantization_config")
    ids = torch.tensor([[5, 81, 300, 27, 9]])
    with torch.no_grad():
        found = plain.eval()(ids).logits[0]
        expected = model.backbone.logits(Call(Layout.of(ids.tolist())))[0]
    tolerance = 0.05 if way == "8 bits" else 1e-5
    assert (found - expected).abs().max() < tolerance * expected.abs().max()
    (note,) = notes
    assert "the folder holds the weights that it computes with, made whole as float32" in note
    assert note in (tmp_path / "plain" / "README.md").read_text(encoding="utf-8")


def test_the_error_of_quantisation_is_said(folders, tmp_path) -> None:
    """By definition: the norm of all changes over that of all weights, and the worst layer's."""
    backbone = load(folders["llama"], "nf4")
    options = method("lora", rank=3, alpha=6.0, targets=["all"])
    stored(tmp_path / "it", lora(backbone), options)
    (note,) = foreword.export_model(tmp_path / "it", tmp_path / "plain")
    checkpoint = dict(load_backbone(str(folders["llama"])).model.named_parameters())
    before = {n: checkpoint[f"{n}.weight"] for n, _ in quantised_layers(backbone.model)}
    change = {n: whole(layer) - before[n] for n, layer in quantised_layers(backbone.model)}
    share = torch.cat([c.flatten() for c in change.values()]).norm()
    share /= torch.cat([b.flatten() for b in before.values()]).norm()
    worst = max(change, key=lambda n: change[n].norm() / before[n].norm())
    most = change[worst].norm() / before[worst].norm()
    assert 0.05 < share < 0.15
    assert f"in {len(before)} quantised layers" in note
    assert f"by {share.item():.2%} of the weights' norm, at most by {most.item():.2%}" in note
    assert f"({worst})" in note


def test_put_into_the_checkpoints_own_weights(folders, tmp_path) -> None:
    options = method("lora", rank=3, alpha=6.0, targets=["all"])
    model = stored(tmp_path / "it", lora(load(folders["llama"], "nf4")), options)
    with pytest.warns(UserWarning, match="here it is not quantised"):
        notes = foreword.export_model(model, tmp_path / "plain", quantization={})
    assert any("trained on a backbone quantised by bitsandbytes" in note for note in notes)
    checkpoint = load_backbone(str(folders["llama"]))
    with pytest.warns(UserWarning, match="here it is not quantised"):
        _, whole_one = load_model(model, backbone=checkpoint)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "plain").eval()
    with torch.no_grad():
        torch.testing.assert_close(
            plain(torch.tensor([[5, 6, 7]])).logits[0],
            whole_one.backbone.logits(Call(Layout.of([[5, 6, 7]])))[0],
            rtol=0,
            atol=1e-4,
        )


@pytest.mark.parametrize("way", [None, "nf4"])
def test_what_bfloat16_rounds_off_an_update_is_said(way, folders, tmp_path) -> None:
    options = method("lora", rank=3, alpha=6.0)
    model = compose(load(folders["llama"], way, dtype="bfloat16"), options)
    with torch.no_grad():
        for parameter in model.delta.parameters():
            parameter.normal_(0.0, 0.005)
    stored(tmp_path / "it", model, options)
    *_, note = foreword.export_model(tmp_path / "it", tmp_path / "plain")
    share = float(note.partition("rounded by ")[2].partition("%")[0])
    assert note.startswith("stored as bfloat16, the changed weights are rounded by ")
    # Half of the last of eight bits of each weight, over an update that is about 1 % of them.
    assert 5 < share < 200


def test_biases_of_quantised_layers_reach_the_plain_model(folders, tmp_path) -> None:
    options = method("bitfit")
    model = compose(load(folders["gpt2"], "nf4"), options)
    louder(model.delta)
    stored(tmp_path / "it", model, options)
    foreword.export_model(tmp_path / "it", tmp_path / "plain")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "plain").eval()
    with torch.no_grad():
        found = plain(torch.tensor([[5, 6, 7]])).logits[0]
        expected = model.backbone.logits(Call(Layout.of([[5, 6, 7]])))[0]
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def test_stored_quantised_there_is_nothing_to_compare_with(folders, tmp_path) -> None:
    small = load(folders["llama"], "nf4")
    small.model.save_pretrained(tmp_path / "small")
    small.tokens.tokenizer.save_pretrained(tmp_path / "small")
    again = load_backbone(str(tmp_path / "small"))
    model = lora(again)
    stored(tmp_path / "it", model, method("lora", rank=3, alpha=6.0, targets=["all"]))
    (note,) = foreword.export_model(tmp_path / "it", tmp_path / "plain")
    assert "is stored quantised, so there are none to compare them with" in note
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "plain").eval()
    assert not hasattr(plain.config, "quantization_config")
    with torch.no_grad():
        found = plain(torch.tensor([[5, 6, 7]])).logits[0]
        expected = model.backbone.logits(Call(Layout.of([[5, 6, 7]])))[0]
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def test_a_weight_that_nothing_makes_whole_is_named() -> None:
    backbone = make_backbone("llama")
    layer = backbone.model.model.layers[0].mlp.up_proj
    layer.weight = torch.nn.Parameter(
        torch.ones(layer.weight.shape, dtype=torch.int8), requires_grad=False
    )
    with pytest.raises(BackboneError, match="cannot be made whole again"):
        whole(layer)
    backbone.model.model.norm.register_buffer("codes", torch.ones(2, 2, dtype=torch.int8))
    with pytest.raises(BackboneError, match=r"model\.norm .* has quantised weights"):
        dict(quantised_layers(backbone.model))
