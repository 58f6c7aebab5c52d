"""An attached prompt as an artifact: what `foreword.load` makes of it answers as before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

import foreword
from conftest import mini_tokens, tiny_model
from foreword.artifacts.manifest import read_manifest
from foreword.attached import AttachedModel
from foreword.backbone import Backbone, bundled_backbones
from foreword.errors import ArtifactError, TemplateError, UserError

TEXTS = ["name : Silver Piper | type : bird", "name : Red Oak | type : tree | height : tall"]


def shaken(model: AttachedModel) -> AttachedModel:
    """The same with other numbers, as if it had been trained."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model


def bundled(name: str, auto: Any = AutoModelForCausalLM) -> tuple[Any, Any]:
    folder = bundled_backbones()[name]
    return auto.from_pretrained(folder, dtype="float32"), AutoTokenizer.from_pretrained(folder)


def written(model: AttachedModel, tokenizer: Any, *, first: int | None) -> list[str]:
    """Greedy answers, one text at a time; `first`: where an answer begins in what is returned."""
    found = []
    for text in TEXTS:
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        row = model.generate(ids, max_new_tokens=8, do_sample=False)[0]
        new = row[ids.shape[1] if first is None else first :]
        found.append(tokenizer.decode(new, skip_special_tokens=True).strip())
    return found


@pytest.mark.parametrize("method", ["prefix-tuning", "prompt-tuning", "p-tuning-v2"])
def test_load_answers_the_same(method: str, tmp_path: Path) -> None:
    base, tokenizer = bundled("foreword/mini")
    model = shaken(foreword.attach(base, method, tokenizer=tokenizer, length=4))
    expected = written(model, tokenizer, first=None)
    manifest = model.save_pretrained(tmp_path / "birds", decoding={"max_new_tokens": 8})
    assert manifest is not None
    assert manifest.name == "birds"
    assert manifest.backbone.name == "foreword/mini"
    assert manifest.trained_parameters == sum(p.numel() for p in model.parameters())
    loaded = foreword.load(tmp_path / "birds")
    assert loaded.generate(TEXTS, num_beams=1) == expected
    assert len(set(expected)) > 1
    assert foreword.detach(model) is base


def test_an_encoder_decoder_loads_and_answers_the_same(tmp_path: Path) -> None:
    base, tokenizer = bundled("foreword/mini-seq2seq", AutoModelForSeq2SeqLM)
    model = shaken(foreword.attach(base, "prefix-tuning", tokenizer=tokenizer, length=4))
    expected = written(model, tokenizer, first=1)
    model.save_pretrained(tmp_path / "rows")
    loaded = foreword.load(tmp_path / "rows")
    assert loaded.generate(TEXTS, num_beams=1, max_new_tokens=8) == expected


def test_a_model_of_no_folder_is_told_by_its_weights(tmp_path: Path) -> None:
    model = shaken(foreword.attach(tiny_model("gpt2"), "prefix-tuning", length=3))
    with pytest.raises(UserError, match="tokenizer: is needed here"):
        model.save_pretrained(tmp_path / "none")
    assert not (tmp_path / "none").exists()
    tokenizer = mini_tokens().tokenizer
    model.save_pretrained(
        tmp_path / "tiny", tokenizer=tokenizer, name="mine", target="={reference}"
    )
    assert read_manifest(tmp_path / "tiny").task.target == "={reference}"
    expected = written(model, tokenizer, first=None)
    again = Backbone.wrap(tiny_model("gpt2"), mini_tokens())
    loaded = foreword.load(tmp_path / "tiny", backbone=again)
    assert loaded.manifest.name == "mine"
    assert loaded.generate(TEXTS, num_beams=1, max_new_tokens=8) == expected
    other = Backbone.wrap(tiny_model("gpt2", seed=1), mini_tokens())
    with pytest.raises(ArtifactError, match="whose weights have sha256"):
        foreword.load(tmp_path / "tiny", backbone=other)


def test_weights_that_are_not_those_of_the_folder_are_refused(tmp_path: Path) -> None:
    base, tokenizer = bundled("foreword/mini")
    with torch.no_grad():
        base.get_input_embeddings().weight[5] += 1
    model = foreword.attach(base, "prefix-tuning", tokenizer=tokenizer)
    with pytest.raises(UserError, match="the weights of the model are not those of"):
        model.save_pretrained(tmp_path / "birds")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"decoding": {"beams": 2}}, "decoding.beams"),
        ({"decoding": {"num_beams": 0}}, "decoding.num_beams: must be at least 1"),
        ({"input": 3}, "task.input"),
        ({"input": "{text"}, "template"),
        ({"target": "x"}, "the target needs the slot"),
    ],
)
def test_what_an_artifact_says_is_checked(
    said: dict[str, Any], message: str, tmp_path: Path
) -> None:
    model = foreword.attach(
        tiny_model("gpt2"), "prefix-tuning", tokenizer=mini_tokens().tokenizer, length=3
    )
    with pytest.raises((UserError, TemplateError), match=message):
        model.save_pretrained(tmp_path / "birds", **said)
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten_and_one_process_writes(tmp_path: Path) -> None:
    model = foreword.attach(
        tiny_model("gpt2"), "prefix-tuning", tokenizer=mini_tokens().tokenizer, length=3
    )
    assert model.save_pretrained(tmp_path / "birds", is_main_process=False) is None
    assert not list(tmp_path.iterdir())
    (tmp_path / "birds").mkdir()
    (tmp_path / "birds" / "own.txt").write_text("mine")
    with pytest.raises(UserError, match="birds"):
        model.save_pretrained(tmp_path / "birds", state_dict=model.state_dict())
    assert [file.name for file in (tmp_path / "birds").iterdir()] == ["own.txt"]
