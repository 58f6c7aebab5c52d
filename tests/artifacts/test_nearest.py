"""The nearest words of virtual tokens: planted ones are found, others are held against numpy."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner, Result

import foreword.artifacts.nearest as nearest
from foreword.artifacts.artifact import save_artifact
from foreword.artifacts.nearest import nearest_words
from foreword.backbone import Backbone, load_backbone
from foreword.cli.app import app
from foreword.comparing.words import WORDS as WORDS_FILE
from foreword.comparing.words import read_words, write_words
from foreword.errors import UserError
from foreword.methods import METHODS
from foreword.recipe import TaskId
from foreword.tuned.compose import compose

STORED = Path(__file__).parent / "of_1_0"
TASK = TaskId(input="{text}", target="{reference}")
WORDS = (" bird", " garden", " red")


@pytest.fixture(scope="module")
def mini() -> Backbone:
    return load_backbone("foreword/mini", device="cpu")


def store(folder: Path, backbone: Backbone, text: str) -> Path:
    """A soft prompt that was not trained: it stands on the embeddings of a text."""
    method = METHODS["prompt-tuning"].model_validate({"name": "prompt-tuning", "length": 3})
    ids = [backbone.tokens.plain(word)[0] for word in WORDS]
    rows = backbone.embeddings(ids) * torch.tensor([[1.0], [7.0], [0.1]])
    model = compose(backbone, method).with_tensors({"decoder.embeddings": rows})
    save_artifact(folder, model, name=text, method=method, task=TASK)
    return folder


def test_planted_words_are_found(mini: Backbone, tmp_path: Path) -> None:
    (tokens,) = nearest_words(store(tmp_path / "a", mini, "planted"), mini).values()
    assert [token[0].word for token in tokens] == [word.strip() for word in WORDS]
    assert [token[0].cosine for token in tokens] == pytest.approx([1.0] * 3, abs=1e-5)
    assert all(len(token) == 5 for token in tokens)
    assert all(token[1].cosine < 0.999 for token in tokens)


def test_the_nearest_by_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "_AT_ONCE", 1000)
    rows = load_file(STORED / "slots" / "prompt.safetensors")["encoder.embeddings"].double().numpy()
    mini = load_backbone("foreword/mini-seq2seq", device="cpu")
    table = mini.model.get_input_embeddings().weight.detach().double().numpy()
    cosines = (rows / np.linalg.norm(rows, axis=1, keepdims=True)) @ (
        table / np.linalg.norm(table, axis=1, keepdims=True)
    ).T
    best = np.sort(cosines, axis=1)[:, ::-1][:, :4]
    near = nearest_words(STORED / "slots", mini, words=4)["encoder"]
    found = np.array([[word.cosine for word in token] for token in near])
    assert np.abs(found - best).max() < 1e-5
    first = mini.tokens.text([int(cosines[0].argmax())]).strip()
    assert near[0][0].word == first


def test_a_prefix_has_none(mini: Backbone) -> None:
    assert nearest_words(STORED / "prefix", mini) == {}


def test_a_run_keeps_them_for_reports(tmp_path: Path) -> None:
    mini = load_backbone("foreword/mini-seq2seq", device="cpu")
    shutil.copytree(STORED / "slots", tmp_path / "slots" / "artifact")
    write_words(tmp_path / "slots", mini)
    near = nearest_words(STORED / "slots", mini)["encoder"]
    assert read_words(tmp_path / "slots") == [[word.word for word in token] for token in near]
    shutil.copytree(STORED / "prefix", tmp_path / "prefix" / "artifact")
    write_words(tmp_path / "prefix", mini)
    assert read_words(tmp_path / "prefix") == []
    (tmp_path / "slots" / WORDS_FILE).write_text('[["a"], 3]', encoding="utf-8")
    assert read_words(tmp_path / "slots") == []


def test_show_tells_them() -> None:
    def show(name: str, *options: str) -> Result:
        return CliRunner().invoke(app, ["show", str(STORED / name), "--words", "2", *options])

    told = json.loads(show("slots", "--json").stdout)["nearest_words"]["encoder"]
    assert all(len(token) == 2 and set(token[0]) == {"word", "cosine"} for token in told)
    assert f"   1  {told[0][0]['word']} {told[0][0]['cosine']:.2f}" in show("slots").stdout
    with pytest.raises(UserError, match="no virtual tokens of its enter the input"):
        raise show("prefix").exception or AssertionError("none was raised")
