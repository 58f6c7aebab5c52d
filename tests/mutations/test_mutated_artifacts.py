"""Damaged artifacts end in a clear error or in a prompt that works, never in a traceback."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mutators import damaged_bytes, damaged_tree, seeds
from safetensors.torch import load_file, save, save_file

from foreword.artifacts.artifact import save_artifact
from foreword.artifacts.manifest import read_manifest
from foreword.backbone import Backbone
from foreword.errors import ArtifactError, UserError
from foreword.methods import PrefixTuning
from foreword.recipe import TaskId
from foreword.session import load
from foreword.tuned.compose import compose

Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def sound(mini: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small artifact that nothing is wrong with."""
    folder = tmp_path_factory.mktemp("artifact") / "sound"
    method = PrefixTuning(name="prefix-tuning", length=2)
    save_artifact(
        folder,
        compose(mini, method),
        name="sound",
        method=method,
        task=TaskId(input="{record}\n", target="{reference}", metrics=("bleu",)),
        data={"train": {"name": "train.jsonl", "sha256": "0" * 64}},
        metrics={"all": {"bleu": 1.0, "ter": None}},
    )
    return folder


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "damaged"))


def verdict(folder: Path, backbone: Backbone) -> bool:
    """Whether the artifact was refused; fails unless that was done clearly."""
    try:
        prompt = load(folder, backbone=backbone)
    except UserError as error:
        said = str(error)
        assert len(said) < 3000
        for word in ("pydantic", "nput should", "instance of"):
            assert word not in said
        return True
    assert torch.isfinite(prompt.model.rows()).all()
    prompt.decoding()
    return False


def replace_tensors(folder: Path, raw: bytes) -> None:
    """Put other bytes in, with their right hash: whoever damages on purpose does that."""
    (folder / "prompt.safetensors").write_bytes(raw)
    manifest = json.loads((folder / "foreword.json").read_text(encoding="utf-8"))
    manifest["prompt_sha256"] = hashlib.sha256(raw).hexdigest()
    (folder / "foreword.json").write_text(json.dumps(manifest), encoding="utf-8")


def test_the_sound_one_loads(folder: Path, mini: Backbone) -> None:
    assert not verdict(folder, mini)


@pytest.mark.parametrize("seed", seeds(80))
def test_manifest_trees(seed: int, folder: Path, mini: Backbone) -> None:
    file = folder / "foreword.json"
    tree = damaged_tree(seed, json.loads(file.read_text(encoding="utf-8")))
    file.write_text(json.dumps(tree), encoding="utf-8")
    verdict(folder, mini)


@pytest.mark.parametrize("seed", seeds(40))
def test_manifest_bytes(seed: int, folder: Path, mini: Backbone) -> None:
    file = folder / "foreword.json"
    file.write_bytes(damaged_bytes(seed, file.read_bytes()))
    verdict(folder, mini)


@pytest.mark.parametrize("seed", range(20))
def test_tensor_bytes(seed: int, folder: Path, mini: Backbone) -> None:
    file = folder / "prompt.safetensors"
    raw = file.read_bytes()
    file.write_bytes(damaged_bytes(seed, raw))
    changed = file.read_bytes() != raw
    assert verdict(folder, mini) == changed


@pytest.mark.parametrize("seed", seeds(40))
def test_tensor_headers_with_the_right_hash(seed: int, folder: Path, mini: Backbone) -> None:
    raw = (folder / "prompt.safetensors").read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    header, data = raw[8 : 8 + size], raw[8 + size :]
    if seed % 2:
        header = damaged_bytes(seed, header)
    else:
        header = json.dumps(damaged_tree(seed, json.loads(header))).encode()
    length = len(header) if seed % 5 else random.Random(seed).choice((0, 2**20, 2**63, 2**64 - 1))
    replace_tensors(folder, struct.pack("<Q", length) + header + data)
    verdict(folder, mini)


def _with(change: Callable[[Tensors], Any]) -> Callable[[Tensors], Tensors]:
    def apply(tensors: Tensors) -> Tensors:
        change(tensors)
        return tensors

    return apply


def _cast(dtype: torch.dtype) -> Callable[[Tensors], Tensors]:
    return lambda t: {**t, "decoder.keys": t["decoder.keys"].to(dtype)}


OTHER_TENSORS: dict[str, Callable[[Tensors], Tensors]] = {
    **{
        str(dtype): _cast(dtype)
        for dtype in (
            torch.int8,
            torch.int64,
            torch.uint8,
            torch.bool,
            torch.complex64,
            torch.float8_e4m3fn,
            torch.float8_e5m2,
        )
    },
    "none": lambda _: {},
    "one missing": _with(lambda t: t.pop("decoder.values")),
    "one too many": _with(lambda t: t.update(extra=torch.zeros(1))),
    "another name": _with(lambda t: t.update(keys=t.pop("decoder.keys"))),
    "another shape": _with(lambda t: t.update({"decoder.keys": torch.zeros(2, 2)})),
    "another length": _with(lambda t: t.update({"decoder.keys": t["decoder.keys"][:, :1]})),
    "no dimension": _with(lambda t: t.update({"decoder.keys": torch.tensor(1.0)})),
    "not a number": _with(lambda t: t["decoder.keys"].fill_(float("nan"))),
    "infinite": _with(lambda t: t["decoder.values"].fill_(float("-inf"))),
    "other layers": _with(lambda t: t["decoder.layers"].add_(1)),
}


@pytest.mark.parametrize("name", OTHER_TENSORS)
def test_other_tensors_with_the_right_hash(name: str, folder: Path, mini: Backbone) -> None:
    tensors = {k: v.clone() for k, v in load_file(folder / "prompt.safetensors").items()}
    changed = {k: v.contiguous() for k, v in OTHER_TENSORS[name](tensors).items()}
    replace_tensors(folder, save(changed))
    assert verdict(folder, mini)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types_are_taken(dtype: torch.dtype, folder: Path, mini: Backbone) -> None:
    tensors = load_file(folder / "prompt.safetensors")
    replace_tensors(folder, save({**tensors, "decoder.keys": tensors["decoder.keys"].to(dtype)}))
    assert not verdict(folder, mini)


@pytest.mark.parametrize("name", ["foreword.json", "prompt.safetensors"])
def test_missing_files_and_folders_in_their_place(name: str, folder: Path, mini: Backbone) -> None:
    (folder / name).unlink()
    assert verdict(folder, mini)
    (folder / name).mkdir()
    assert verdict(folder, mini)


def test_what_is_no_artifact(tmp_path: Path, mini: Backbone) -> None:
    file = tmp_path / "file"
    file.write_text("x", encoding="utf-8")
    for place in (tmp_path, tmp_path / "nothing", file):
        with pytest.raises(ArtifactError, match=r"is no artifact|cannot be read"):
            load(place, backbone=mini)


def test_the_card_is_not_needed(folder: Path, mini: Backbone) -> None:
    (folder / "README.md").unlink()
    assert not verdict(folder, mini)


def test_later_versions(folder: Path, mini: Backbone) -> None:
    file = folder / "foreword.json"
    manifest = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**manifest, "format": "1.9", "novelty": [1]}), encoding="utf-8")
    assert not verdict(folder, mini)
    file.write_text(json.dumps({**manifest, "format": "2.0"}), encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"format '2\.0' is not known.*reads 1\.x"):
        read_manifest(folder)


def test_a_backbone_of_other_weights(folder: Path, mini: Backbone) -> None:
    file = folder / "foreword.json"
    manifest = json.loads(file.read_text(encoding="utf-8"))
    for part in ("backbone", "tokens"):
        other = {**manifest, part: {**manifest[part], "sha256": "0" * 64}}
        file.write_text(json.dumps(other), encoding="utf-8")
        with pytest.raises(ArtifactError, match="`other_backbone=True`"):
            load(folder, backbone=mini)
        load(folder, backbone=mini, other_backbone=True)


def test_no_pickle_is_read(folder: Path, mini: Backbone) -> None:
    torch.save({"decoder.keys": torch.zeros(1)}, folder / "pickled")
    replace_tensors(folder, (folder / "pickled").read_bytes())
    assert verdict(folder, mini)
    save_file({"decoder.keys": torch.zeros(1)}, folder / "prompt.safetensors")
    assert verdict(folder, mini)
