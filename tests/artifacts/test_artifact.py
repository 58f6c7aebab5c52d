"""An artifact holds the folded prompt and all that is needed to use it again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from conftest import arranged
from families.measures import backbone_of
from foreword.artifacts.artifact import load_model, save_artifact
from foreword.artifacts.manifest import Manifest, artifact_folder, read_manifest, size_in_bytes
from foreword.backbone import Backbone, Decoding
from foreword.errors import ArtifactError, UserError
from foreword.methods import HardPrompt, MethodChoice, PrefixTuning
from foreword.methods.axes import MLP, Table
from foreword.recipe import DecodingSpec, TaskId
from foreword.session import load
from foreword.tuned import TunedModel
from foreword.tuned.compose import compose

TASK = TaskId(input="{text}\n", target="{reference}", metrics=("bleu",))
METHODS: dict[str, MethodChoice] = {
    "table": PrefixTuning(
        name="prefix-tuning", length=3, positions="keep", reparameterization=Table(std=0.5)
    ),
    "mlp": PrefixTuning(name="prefix-tuning", length=2, reparameterization=MLP(hidden=8)),
    "alone": HardPrompt(name="hard-prompt"),
}


@pytest.fixture
def backbone(tiny_backbone: Callable[..., Backbone]) -> Backbone:
    return tiny_backbone("gpt2")


def save(folder: Path, model: TunedModel, method: MethodChoice) -> Manifest:
    return save_artifact(
        folder,
        model,
        name="it",
        method=method,
        task=TASK,
        decoding=DecodingSpec(max_new_tokens=5, stop=("\n",)),
        metrics={"all": {"bleu": 12.345, "slot_coverage": None}},
        seed=7,
    )


@pytest.mark.parametrize("name", METHODS)
def test_saved_and_loaded_are_the_same(name: str, backbone: Backbone, tmp_path: Path) -> None:
    method = METHODS[name]
    model = compose(backbone, method)
    written = save(tmp_path / "it", model, method)
    manifest, loaded = load_model(tmp_path / "it", backbone=backbone)
    assert manifest == written == read_manifest(tmp_path / "it")
    assert torch.equal(loaded.rows(), model.rows())
    assert loaded.placement == model.placement
    assert loaded.trained_parameters == 0
    how = Decoding(max_new_tokens=5)
    answers = [m.answers(arranged(m, ["a bird", "x"], side="left"), how) for m in (model, loaded)]
    assert answers[0] == answers[1]


@pytest.mark.parametrize("name", METHODS)
def test_on_latent_attention(name: str, tmp_path: Path) -> None:
    """Keys and values of unequal widths are stored and read back, and decoding is the same."""
    backbone, method = backbone_of("deepseek_v3", torch.float32), METHODS[name]
    model = compose(backbone, method)
    save(tmp_path / "it", model, method)
    manifest, loaded = load_model(tmp_path / "it", backbone=backbone)
    assert torch.equal(loaded.rows(), model.rows())
    if method.length:
        tensors = load_file(tmp_path / "it" / "prompt.safetensors")
        assert tensors["decoder.keys"].shape == (2, method.length, 4, 16)
        assert tensors["decoder.values"].shape == (2, method.length, 4, 12)
        assert manifest.axes["cache"] == "latents"


def test_what_is_written(backbone: Backbone, tmp_path: Path) -> None:
    save(tmp_path / "it", compose(backbone, METHODS["mlp"]), METHODS["mlp"])
    assert {file.name for file in (tmp_path / "it").iterdir()} == {
        "foreword.json",
        "prompt.safetensors",
        "README.md",
    }
    g = backbone.geometry
    tensors = load_file(tmp_path / "it" / "prompt.safetensors")
    assert {name: list(tensor.shape) for name, tensor in tensors.items()} == {
        "decoder.keys": [g.main.layers, 2, g.main.heads[0].kv_heads, g.main.heads[0].key_dim],
        "decoder.values": [g.main.layers, 2, g.main.heads[0].kv_heads, g.main.heads[0].value_dim],
        "decoder.layers": [g.main.layers],
    }
    raw = json.loads((tmp_path / "it" / "foreword.json").read_text(encoding="utf-8"))
    assert raw["format"] == "1.1"
    assert raw["axes"]["length"] == 2
    assert raw["decoding"]["stop"] == ["\n"]
    card = (tmp_path / "it" / "README.md").read_text(encoding="utf-8")
    for part in ("# it", "2 virtual tokens", "Li & Liang 2021", "| bleu | 12.35 |", "Seed: 7"):
        assert part in card
    assert size_in_bytes(tmp_path / "it") == sum(
        file.stat().st_size for file in (tmp_path / "it").iterdir()
    )


def test_loading_does_not_build_what_made_the_tokens(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The MLP belongs to the training alone, whatever its width."""
    save(tmp_path / "it", compose(backbone, METHODS["mlp"]), METHODS["mlp"])
    monkeypatch.setattr("foreword.axes.reparam.mlp.MLP", None)
    load_model(tmp_path / "it", backbone=backbone)


def test_an_artifact_is_never_overwritten(backbone: Backbone, tmp_path: Path) -> None:
    model = compose(backbone, METHODS["table"])
    save(tmp_path / "it", model, METHODS["table"])
    before = (tmp_path / "it" / "foreword.json").read_bytes()
    with pytest.raises(UserError, match="is not empty"):
        save(tmp_path / "it", model, METHODS["table"])
    assert (tmp_path / "it" / "foreword.json").read_bytes() == before


def test_a_backbone_of_another_shape(
    backbone: Backbone, tiny_backbone: Callable[..., Backbone], tmp_path: Path
) -> None:
    save(tmp_path / "it", compose(backbone, METHODS["table"]), METHODS["table"])
    other = tiny_backbone("llama")
    with pytest.raises(ArtifactError, match="whose weights have sha256"):
        load_model(tmp_path / "it", backbone=other)
    with pytest.raises(ArtifactError, match=r"decoder\.keys has shape .* need"):
        load_model(tmp_path / "it", backbone=other, other_backbone=True)


def test_a_run_folder_stands_for_its_artifact(backbone: Backbone, tmp_path: Path) -> None:
    save(tmp_path / "run" / "artifact", compose(backbone, METHODS["table"]), METHODS["table"])
    assert artifact_folder(tmp_path / "run") == tmp_path / "run" / "artifact"
    assert artifact_folder(tmp_path / "run" / "artifact") == tmp_path / "run" / "artifact"
    assert artifact_folder(tmp_path) == tmp_path


def test_a_session_answers_texts_and_fields(backbone: Backbone, tmp_path: Path) -> None:
    save(tmp_path / "it", compose(backbone, METHODS["table"]), METHODS["table"])
    prompt = load(tmp_path / "it", backbone=backbone)
    by_text = prompt.generate(["a bird", "x"])
    assert by_text == prompt.generate([{"text": "a bird"}, {"text": "x", "more": 1}])
    assert by_text == [prompt.generate([text])[0] for text in ("a bird", "x")]
    assert prompt.generate([]) == []
    assert prompt.decoding(num_beams=2).max_new_tokens == 5
    for wrong, said in (
        ({"num_beam": 2}, "decoding.num_beam: no such name .*num_beams"),
        ({"num_beams": 0}, "decoding.num_beams: must be at least 1, found 0"),
        ({"stop": "x"}, "decoding.stop: expected a list"),
    ):
        with pytest.raises(UserError, match=said):
            prompt.generate(["x"], **wrong)
    with pytest.raises(UserError, match="the data has no field 'text'"):
        prompt.generate([{"txt": "x"}])
