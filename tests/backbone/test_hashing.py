"""A backbone's identity: the stored tensors, however they are cut into files."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from foreword.backbone import bundled_backbones, load_backbone
from foreword.backbone.weights import hashing
from foreword.errors import BackboneError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FOREWORD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def tensors() -> dict[str, Tensor]:
    return {
        "a": torch.arange(6.0).reshape(2, 3),
        "b": torch.arange(4, dtype=torch.int32),
        "c": torch.tensor(1.5, dtype=torch.bfloat16),
    }


def written(folder: Path, *shards: dict[str, Tensor]) -> Path:
    folder.mkdir(exist_ok=True)
    for number, shard in enumerate(shards):
        save_file(shard, folder / f"model-{number}.safetensors")
    return folder


def test_cut_into_files_it_stays_the_same(tmp_path) -> None:
    all_of = tensors()
    whole = hashing.hash_folder(written(tmp_path / "one", all_of))
    last = {"a": all_of["a"]}
    first = {name: t for name, t in all_of.items() if name != "a"}
    assert hashing.hash_folder(written(tmp_path / "two", first, last)) == whole
    assert hashing.hash_tensors(sorted(all_of.items())) == whole


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t | {"a": t["a"] + torch.tensor([[0, 0, 0], [0, 0, 2**-20]])},
        lambda t: {("z" if name == "a" else name): value for name, value in t.items()},
        lambda t: t | {"a": t["a"].reshape(3, 2)},
        lambda t: t | {"a": t["a"].view(torch.int32)},
        lambda t: t | {"d": torch.zeros(1)},
        lambda t: {name: value for name, value in t.items() if name != "c"},
    ],
    ids=["byte", "name", "shape", "dtype", "added", "removed"],
)
def test_a_change_is_seen(tmp_path, change) -> None:
    before = hashing.hash_folder(written(tmp_path / "before", tensors()))
    after = hashing.hash_folder(written(tmp_path / "after", change(tensors())))
    assert before != after


def test_without_safetensors_it_is_refused(tmp_path) -> None:
    torch.save(tensors(), tmp_path / "pytorch_model.bin")
    with pytest.raises(BackboneError, match=r"no \.safetensors file"):
        hashing.hash_folder(tmp_path)


def test_the_cache_saves_reading(tmp_path, cache, monkeypatch) -> None:
    folder = written(tmp_path / "model", tensors())
    first = hashing.hash_folder(folder)
    assert (cache / "backbone-hashes.json").is_file()
    monkeypatch.setattr(hashing, "_stored", lambda files: pytest.fail("read again"))
    assert hashing.hash_folder(folder) == first


def test_the_cache_sees_a_change_of_time_or_size(tmp_path) -> None:
    folder = written(tmp_path / "model", tensors())
    file = folder / "model-0.safetensors"
    first, stat = hashing.hash_folder(folder), file.stat()

    other = tensors() | {"a": torch.ones(2, 3)}
    written(folder, other)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert file.stat().st_size == stat.st_size
    second = hashing.hash_folder(folder)
    assert second != first

    written(folder, other | {"longer": torch.ones(9)})
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert hashing.hash_folder(folder) not in (first, second)


@pytest.mark.parametrize("content", ["", "[]", "{", "null"])
def test_a_damaged_cache_is_passed_over(tmp_path, cache, content) -> None:
    cache.mkdir()
    (cache / "backbone-hashes.json").write_text(content)
    folder = written(tmp_path / "model", tensors())
    assert hashing.hash_folder(folder) == hashing.hash_tensors(sorted(tensors().items()))


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FOREWORD_CACHE", str(tmp_path / "file" / "below"))
    folder = written(tmp_path / "model", tensors())
    assert hashing.hash_folder(folder) == hashing.hash_tensors(sorted(tensors().items()))


def test_a_cast_does_not_change_it(mini) -> None:
    stored = hashing.hash_folder(bundled_backbones()["foreword/mini"])
    assert load_backbone("foreword/mini", dtype="float64").sha256 == mini.sha256 == stored


def test_a_module_is_hashed_as_it_is(tiny_backbone) -> None:
    one, other = tiny_backbone("gpt2"), tiny_backbone("gpt2", seed=1)
    assert one.sha256 == hashing.hash_module(one.model)
    assert one.sha256 != other.sha256
