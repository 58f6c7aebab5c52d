"""The folder of a run: which it gets, and what it says of the machine it was made on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from foreword.artifacts.manifest import read_manifest
from foreword.backbone import Backbone
from foreword.common import files
from foreword.data.readers import data_file
from foreword.errors import UserError
from foreword.recipe import Recipe, load_recipe, parse_recipe
from foreword.runs import Stopped, train
from foreword.runs.data import without_folders
from foreword.runs.folder import claimed
from foreword.training.hardware import Hardware

QUICKSTART = Path(__file__).resolve().parents[2] / "recipes" / "quickstart.yaml"
FIELDGUIDE = "foreword/fieldguide/"


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    monkeypatch.chdir(tmp_path)
    return load_recipe(QUICKSTART, ["name=it"])


def test_two_runs_at_once_get_two_folders(recipe: Recipe) -> None:
    """Both chose runs/it when there was none yet; the second to come takes the next number."""
    hardware, chosen = Hardware.of("cpu", "float32"), Path("runs/it")
    with (
        claimed(chosen, recipe, hardware, resume=False, numbered=True) as first,
        claimed(chosen, recipe, hardware, resume=False, numbered=True) as second,
        claimed(chosen, recipe, hardware, resume=False, numbered=True) as third,
    ):
        assert [str(f) for f in (first, second, third)] == ["runs/it", "runs/it-2", "runs/it-3"]
        for folder in (first, second, third):
            assert load_recipe(folder / "recipe.yaml") == recipe
            with pytest.raises(UserError, match="another process is writing"), files.locked(folder):
                pass


def test_a_folder_that_is_locked_and_still_empty_is_passed_over(recipe: Recipe) -> None:
    hardware, chosen = Hardware.of("cpu", "float32"), Path("runs/it")
    chosen.mkdir(parents=True)
    with (
        files.locked(chosen),
        claimed(chosen, recipe, hardware, resume=False, numbered=True) as folder,
    ):
        assert folder == Path("runs/it-2")
    assert list(chosen.iterdir()) == []


def test_a_folder_that_the_user_names_is_never_another(recipe: Recipe) -> None:
    hardware, chosen = Hardware.of("cpu", "float32"), Path("runs/it")
    with (
        claimed(chosen, recipe, hardware, resume=False),
        pytest.raises(UserError, match="another process is writing"),
        claimed(chosen, recipe, hardware, resume=False),
    ):
        pass
    assert not Path("runs/it-2").exists()


def test_a_refused_run_leaves_its_number_free(recipe: Recipe) -> None:
    hardware, chosen = Hardware.of("cpu", "float32"), Path("runs/it")
    with claimed(chosen, recipe, hardware, resume=False, numbered=True):
        with (
            pytest.raises(UserError, match="refused"),
            claimed(chosen, recipe, hardware, resume=False, numbered=True) as second,
        ):
            raise UserError("refused")
        assert not second.exists()
        assert chosen.exists()


def test_a_stop_names_the_folder_that_was_taken(recipe: Recipe) -> None:
    hardware, chosen = Hardware.of("cpu", "float32"), Path("runs/it")
    with claimed(chosen, recipe, hardware, resume=False, numbered=True):
        with (
            pytest.raises(Stopped) as stopped,
            claimed(chosen, recipe, hardware, resume=False, numbered=True),
        ):
            raise Stopped(2)
        assert stopped.value.folder == Path("runs/it-2")


def test_a_lock_on_a_folder_that_was_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run made it, was refused, and removed it between the opening and the lock."""
    folder = tmp_path / "it"
    folder.mkdir()
    monkeypatch.setattr(files.fcntl, "flock", lambda *_: folder.rmdir())
    with pytest.raises(files.Occupied, match="removed"), files.locked(folder):
        pass


def test_a_recipe_without_folders() -> None:
    data = {
        "format": "xsum",
        "train": "/home/me/secret/train.jsonl",
        "dev": "../dev.jsonl",
        "test": "hub:EdinburghNLP/xsum:test",
        "only": {"train": {"ids": "/home/me/secret/ids.txt"}},
    }
    recipe = parse_recipe(
        {
            "version": 1,
            "name": "it",
            "backbone": "foreword/mini",
            "task": {"input": "{document}", "data": data},
            "method": {"name": "prompt-tuning", "length": 1},
        }
    )
    bare = without_folders(recipe).task.data
    assert bare.only is not None
    assert bare.only.train.ids == "ids.txt"
    found = (bare.train, bare.dev, bare.test)
    assert found == ("train.jsonl", "dev.jsonl", "hub:EdinburghNLP/xsum:test")
    assert recipe.task.data.train == "/home/me/secret/train.jsonl", "the run's own is as it was"


def test_an_artifact_and_its_checkpoints_name_no_folder(
    mini: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "home-of-somebody"
    secret.mkdir()
    overrides = ["training.steps=2", "training.checkpoint_every=1", "method.length=1"]
    overrides += ["method.reparameterization.kind=table", "evaluation.backbone_alone=false"]
    overrides += ["decoding.max_new_tokens=2", "task.limits={train: 4, dev: 2, test: 2}"]
    for split in ("train", "dev", "test"):
        shutil.copy(data_file(FIELDGUIDE + split), secret / f"{split}.jsonl")
        overrides.append(f"task.data.{split}={secret / split}.jsonl")
    kept: list[str] = []
    from foreword.training.storage import Storage

    save: Callable[..., Path] = Storage.save

    def saved(self: Storage, *arguments: object) -> Path:
        folder = save(self, *arguments)
        kept.append((folder / "checkpoint.json").read_text(encoding="utf-8"))
        return folder

    monkeypatch.setattr(Storage, "save", saved)
    run = train(QUICKSTART, overrides=overrides, out=tmp_path / "run", backbone=mini, device="cpu")
    assert kept
    for text in (*kept, *(f.read_bytes().decode(errors="ignore") for f in run.artifact.iterdir())):
        assert secret.name not in text
    manifest = read_manifest(run.artifact)
    assert manifest.data["train"]["name"] == "train.jsonl"
    assert manifest.recipe["task"]["data"]["dev"] == "dev.jsonl"
    assert json.loads(kept[0])["run"]["data"]["test"]["name"] == "test.jsonl"
    assert load_recipe(run.folder / "recipe.yaml") == run.recipe, "the run goes on by its own"
