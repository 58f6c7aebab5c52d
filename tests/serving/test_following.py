"""A folder of prompts that is looked at again while a server answers."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from running import Client, running

from conftest import make_backbone
from foreword.backbone import Backbone
from foreword.errors import UserError
from foreword.serving import PromptStore
from foreword.serving.following import PromptFolder
from foreword.serving.spec import read_spec
from stored_prompts import prefix, soft, store, writes

TEXTS = ["a film", "so"]


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return make_backbone("gpt2", torch.float64)


@pytest.fixture(scope="module")
def made(backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("made")
    return {
        "soft": store(folder / "soft", backbone, soft(), writes()),
        "deep": store(folder / "deep", backbone, prefix(), writes(), seed=1),
        "other": store(
            folder / "other", make_backbone("gpt2", torch.float64, seed=1), soft(), writes()
        ),
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "prompts").mkdir()
    return tmp_path / "prompts"


@pytest.fixture
def kept(backbone: Backbone) -> PromptStore:
    return PromptStore(backbone)


def written(kept: PromptStore, name: str) -> list[str]:
    return kept.get(name).generate(TEXTS)


def test_prompts_come_change_and_go(folder: Path, kept: PromptStore, made: dict[str, Path]) -> None:
    followed, gone = PromptFolder(folder, kept), []
    followed.look()
    assert list(kept) == []
    shutil.copytree(made["soft"], folder / "a")
    shutil.copytree(made["deep"], folder / "run" / "artifact")
    (folder / "notes.txt").write_text("no prompt", encoding="utf-8")
    followed.look()
    assert sorted(kept) == ["a", "run"]
    first = written(kept, "a")
    registered = kept.find("a")
    followed.look(gone.append)
    assert kept.find("a") is registered, "what is as it was is not read again"
    shutil.copytree(made["deep"], folder / "new")
    (folder / "a").rename(folder.parent / "old")
    (folder / "new").rename(folder / "a")
    followed.look(gone.append)
    assert written(kept, "a") == written(kept, "run") != first
    shutil.rmtree(folder / "run")
    followed.look(gone.append)
    assert (list(kept), gone) == (["a"], ["run"])


def test_an_artifact_that_is_being_copied_is_taken_when_it_is_whole(
    folder: Path, kept: PromptStore, made: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    """Whichever of its files comes first, and in whatever pieces."""
    followed = PromptFolder(folder, kept)
    (folder / "a").mkdir()
    for name in ("foreword.json", "prompt.safetensors"):
        content = (made["soft"] / name).read_bytes()
        for part in (content[: len(content) // 2], content):
            assert "a" not in kept
            (folder / "a" / name).write_bytes(part)
            followed.look()
    assert written(kept, "a")
    caplog.clear()
    (folder / "a" / "prompt.safetensors").write_bytes(b"damaged")
    with caplog.at_level(logging.WARNING, "foreword.serving"):
        followed.look()
        followed.look()
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith("the prompt 'a' stays as it was: ")
    assert written(kept, "a"), "the one in memory answers"


def test_what_cannot_be_served_is_said_once(
    folder: Path, kept: PromptStore, made: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(made["other"], folder / "other")
    shutil.copytree(made["soft"], folder / "no name")
    shutil.copytree(made["soft"], folder / "good")
    followed = PromptFolder(folder, kept)
    with caplog.at_level(logging.WARNING, "foreword.serving"):
        for _ in range(3):
            followed.look()
    assert list(kept) == ["good"]
    said = sorted(record.getMessage() for record in caplog.records)
    assert len(said) == 2
    assert "'no name' is no name of a prompt" in said[0]
    assert said[1].startswith("the prompt 'other' is left out: ")
    assert "was trained on" in said[1]


def test_names_of_others_are_left_to_them(
    folder: Path, kept: PromptStore, made: dict[str, Path]
) -> None:
    own = kept.add("a", made["deep"])
    shutil.copytree(made["soft"], folder / "a")
    followed = PromptFolder(folder, kept)
    followed.look()
    assert kept.find("a") is own
    kept.remove("a")
    followed.look()
    taken = kept.find("a")
    assert taken is not None
    replaced = kept.add("a", made["deep"])
    shutil.rmtree(folder / "a")
    followed.look()
    assert kept.find("a") is replaced


def test_a_folder_that_cannot_be_read_changes_nothing(
    folder: Path, kept: PromptStore, made: dict[str, Path]
) -> None:
    shutil.copytree(made["soft"], folder / "a")
    followed = PromptFolder(folder, kept)
    followed.look()
    folder.rename(folder.parent / "away")
    with pytest.raises(UserError, match=r"prompts: .*No such file"):
        followed.look()
    assert written(kept, "a")


@pytest.fixture
def client(backbone: Backbone, folder: Path) -> Iterator[Client]:
    with running(backbone, prompts=folder, refresh=0.02) as found:
        yield found


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.01)


def test_a_server_takes_what_comes_into_its_folder(
    client: Client, folder: Path, made: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    body = {"prompt": "so", "temperature": 0}
    assert client.complete("a", **body).status == 404
    shutil.copytree(made["soft"], folder / "a")
    until(lambda: client.complete("a", **body).status == 200)
    folder.rename(folder.parent / "away")
    with caplog.at_level(logging.WARNING, "foreword.serving"):
        until(lambda: any("prompts stay as they were" in r.getMessage() for r in caplog.records))
    assert client.complete("a", **body).status == 200
    (folder.parent / "away").rename(folder)
    shutil.rmtree(folder / "a")
    until(lambda: client.complete("a", **body).status == 404)
    until(lambda: b'model="a"' not in client.ask("GET", "/metrics").content)


def test_a_refresh_without_a_folder_is_refused(tmp_path: Path) -> None:
    flags: dict[str, Any] = {"backbone": "foreword/mini", "refresh": 2.0}
    with pytest.raises(UserError, match="`refresh` is for a folder of `prompts`"):
        read_spec(None, flags)
    assert read_spec(None, {**flags, "prompts": tmp_path}).refresh == 2.0
