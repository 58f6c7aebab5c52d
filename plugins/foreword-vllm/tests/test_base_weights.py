"""The base model is told by its stored weights, as foreword tells it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from foreword_vllm import PromptError, weights
from foreword_vllm.weights import OtherWeights, check_same, sha256_of

TENSORS = {
    "b.weight": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "a.weight": torch.ones(2, dtype=torch.bfloat16),
    "empty": torch.zeros(0),
}


@pytest.fixture(autouse=True)
def _own_memory(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def sharded(folder: Path) -> Path:
    folder.mkdir()
    names = {"one.safetensors": ["a.weight"], "two.safetensors": ["b.weight", "empty"]}
    for file, held in names.items():
        save_file({name: TENSORS[name] for name in held}, folder / file)
    where = {name: file for file, held in names.items() for name in held}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": where}))
    save_file({"stray": torch.ones(1)}, folder / "stray.safetensors")
    return folder


def whole(folder: Path) -> Path:
    folder.mkdir()
    save_file(TENSORS, folder / "model.safetensors")
    return folder


def test_it_is_forewords_hash(tmp_path) -> None:
    hashing = pytest.importorskip(
        "foreword.backbone.weights.hashing", reason="foreword is not here to compare with"
    )
    for folder in (whole(tmp_path / "whole"), sharded(tmp_path / "sharded")):
        assert sha256_of(str(folder)) == hashing.hash_folder(folder)


def test_how_it_is_cut_into_files_does_not_matter(tmp_path) -> None:
    first, second = sha256_of(str(whole(tmp_path / "a"))), sha256_of(str(sharded(tmp_path / "b")))
    assert first == second
    changed = {**TENSORS, "a.weight": torch.zeros(2, dtype=torch.bfloat16)}
    (tmp_path / "c").mkdir()
    save_file(changed, tmp_path / "c" / "model.safetensors")
    assert sha256_of(str(tmp_path / "c")) != first


def test_it_is_computed_once_for_a_file(tmp_path, monkeypatch) -> None:
    folder = whole(tmp_path / "a")
    first = sha256_of(str(folder))
    monkeypatch.setattr(weights, "_hashed", lambda files: pytest.fail("computed again"))
    assert sha256_of(str(folder)) == first
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    save_file({"a": torch.ones(1)}, folder / "model.safetensors")
    assert sha256_of(str(folder)) != first


def test_a_memory_that_cannot_be_read_is_none(tmp_path) -> None:
    folder = whole(tmp_path / "a")
    memory = tmp_path / "cache" / "foreword-vllm" / "weights.json"
    memory.parent.mkdir(parents=True)
    for content in ("{", "[]", ""):
        memory.write_text(content)
        assert len(sha256_of(str(folder))) == 64


def test_a_model_without_safetensors_is_refused(tmp_path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(PromptError, match=r'no \.safetensors file.*"other_weights": true'):
        sha256_of(str(tmp_path / "a"))
    (tmp_path / "a" / "model.safetensors").write_bytes(b"x" * 20)
    with pytest.raises(PromptError, match="its checkpoint cannot be read"):
        sha256_of(str(tmp_path / "a"))


def test_other_weights_are_told_with_both_names() -> None:
    check_same("p", "trained", "a" * 64, "served", "a" * 64)
    with pytest.raises(OtherWeights, match=r"trained on 'trained'.*aaaa.*'served' have bbbb"):
        check_same("p", "trained", "a" * 64, "served", "b" * 64)
