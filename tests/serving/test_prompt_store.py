"""Prompts by name, the least recently asked for out of memory."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import make_backbone
from foreword.backbone import Backbone
from foreword.errors import ArtifactError, BusyError, UserError
from foreword.methods import LoRA
from foreword.serving import PromptStore
from stored_prompts import prefix, soft, store, writes


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return make_backbone("gpt2")


@pytest.fixture
def folders(backbone: Backbone, tmp_path: Path) -> list[Path]:
    return [store(tmp_path / f"p{n}", backbone, prefix(), writes(), seed=n) for n in range(4)]


def test_the_least_recently_asked_for_give_way(backbone: Backbone, folders: list[Path]) -> None:
    size = PromptStore(backbone).add("one", folders[0]).bytes
    prompts = PromptStore(backbone, memory=2 * size)
    for number, folder in enumerate(folders):
        prompts.add(f"p{number}", folder)
        assert prompts.in_memory[1] <= 2 * size
    assert prompts.in_memory == (2, 2 * size)
    assert [prompts.registered(f"p{n}").loaded is not None for n in range(4)] == [
        False,
        False,
        True,
        True,
    ]
    first = prompts.get("p2")
    assert prompts.get("p2") is first
    again = prompts.get("p0")
    assert prompts.registered("p3").loaded is None
    assert prompts.get("p2") is first
    assert torch.equal(
        again.model.rows(), PromptStore(backbone).add("x", folders[0]).loaded.model.rows()
    )


def test_what_requests_have_is_counted(backbone: Backbone, folders: list[Path]) -> None:
    """There is one copy of a prompt however often it is asked for, and no more of all of them than
    there is memory for."""
    size = PromptStore(backbone).add("one", folders[0]).bytes
    prompts = PromptStore(backbone, memory=2 * size)
    for number, folder in enumerate(folders):
        prompts.add(f"p{number}", folder)
    held = [prompts.get("p0").model, prompts.get("p1").model]
    assert prompts.get("p0").model is held[0]
    with pytest.raises(BusyError, match=r"no room for 'p2' beside .* all may take [\d,]+ bytes"):
        prompts.get("p2")
    assert prompts.get("p0").model is held[0]
    assert prompts.in_memory[1] == 2 * size
    prompts.add("p3", folders[3])  # which is read when there is room again
    assert prompts.registered("p3").loaded is None
    prompts.remove("p1")
    assert prompts.in_memory[1] == 2 * size
    del held[1]
    assert prompts.get("p3").model is not None
    assert prompts.in_memory == (1, 2 * size)
    held.clear()
    assert prompts.get("p2").model is not None
    assert prompts.in_memory == (2, 2 * size)


def test_a_prompt_that_cannot_be_read_takes_no_memory(
    backbone: Backbone, folders: list[Path]
) -> None:
    size = PromptStore(backbone).add("one", folders[0]).bytes
    prompts = PromptStore(backbone, memory=size)
    for number, folder in enumerate(folders[:2]):
        prompts.add(f"p{number}", folder)
    shutil.rmtree(folders[0])
    for _ in range(3):
        with pytest.raises(ArtifactError):
            prompts.get("p0")
    assert prompts.in_memory == (0, 0)
    assert prompts.get("p1").model is not None


def test_soft_prompts_count_what_is_made_of_them(backbone: Backbone, tmp_path: Path) -> None:
    """A decoder's keys and values, of every layer."""
    own = PromptStore(backbone).add("soft", store(tmp_path / "s", backbone, soft(4), writes()))
    g = backbone.geometry.main
    assert own.bytes >= 4 * g.width * 4


def test_replaced_and_removed(backbone: Backbone, folders: list[Path]) -> None:
    prompts = PromptStore(backbone)
    prompts.add("a", folders[0])
    before = prompts.get("a")
    prompts.add("a", folders[1])
    assert prompts.get("a") is not before
    assert prompts.in_memory[0] == len(prompts) == 1
    prompts.remove("a")
    del before
    assert prompts.in_memory == (0, 0)
    assert "a" not in prompts
    for call in (prompts.get, prompts.remove, prompts.registered):
        with pytest.raises(UserError, match="there is no 'a' among 0"):
            call("a")


def test_a_folder_that_changed_is_not_taken_for_what_it_was(
    backbone: Backbone, folders: list[Path]
) -> None:
    prompts = PromptStore(backbone, memory=PromptStore(backbone).add("x", folders[0]).bytes)
    prompts.add("a", folders[0])
    prompts.add("b", folders[1])
    shutil.rmtree(folders[0])
    with pytest.raises(ArtifactError, match="there is no such folder"):
        prompts.get("a")
    shutil.copytree(folders[2], folders[0])
    with pytest.raises(ArtifactError, match="was changed since 'a' was added; add it again"):
        prompts.get("a")
    assert prompts.get("b") is prompts.registered("b").loaded


def test_one_that_is_replaced_while_it_is_read_again(
    backbone: Backbone, folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder may be gone by then; the new one is taken."""
    prompts = PromptStore(backbone, memory=PromptStore(backbone).add("x", folders[0]).bytes)
    prompts.add("a", folders[0])
    prompts.add("b", folders[1])
    read, replaced = PromptStore._read, []

    def replaces(self: PromptStore, folder: Path) -> Any:
        if not replaced:
            replaced.append(folder)
            shutil.rmtree(folder)
            self.add("a", folders[2])
        return read(self, folder)

    monkeypatch.setattr(PromptStore, "_read", replaces)
    assert prompts.get("a") is prompts.registered("a").loaded
    assert replaced == [folders[0]]
    assert prompts.registered("a").folder == folders[2]


@pytest.mark.parametrize(
    "name", ["", "../a", "a/b", ".a", "a b", "a\n", "ä", "a" * 129, "a\0b", "%2e"]
)
def test_names_that_no_prompt_has(backbone: Backbone, folders: list[Path], name: str) -> None:
    with pytest.raises(UserError, match="is no name of a prompt"):
        PromptStore(backbone).add(name, folders[0])


def test_the_backbones_name(backbone: Backbone, folders: list[Path]) -> None:
    with pytest.raises(UserError, match="'base' is the backbone's"):
        PromptStore(backbone, reserved=("base",)).add("base", folders[0])


def test_what_is_not_served(backbone: Backbone, folders: list[Path], tmp_path: Path) -> None:
    """Nothing is registered, and a prompt of the same name stays."""
    prompts = PromptStore(backbone)
    prompts.add("a", folders[0])
    kept = prompts.get("a")
    other = make_backbone("gpt2", seed=1)
    strange = store(tmp_path / "strange", other, prefix(), writes())
    lora = store(tmp_path / "lora", backbone, LoRA(name="lora"), writes())
    damaged = shutil.copytree(folders[1], tmp_path / "damaged")
    file = damaged / "prompt.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    linked = shutil.copytree(folders[1], tmp_path / "linked")
    (linked / "prompt.safetensors").unlink()
    (linked / "prompt.safetensors").symlink_to(folders[1] / "prompt.safetensors")
    for folder, reason in (
        (strange, "whose weights have sha256"),
        (lora, r"weights of the backbone that were trained too \(delta: lora\)"),
        (damaged, "is damaged"),
        (linked, "prompt.safetensors: cannot be read"),
        (tmp_path / "nowhere", "there is no such folder"),
    ):
        with pytest.raises(ArtifactError, match=reason):
            prompts.add("a", folder)
    assert prompts.get("a") is kept
    assert PromptStore(backbone, other_backbone=True).add("a", strange).loaded is not None


def test_sizes_have_bounds(backbone: Backbone, folders: list[Path]) -> None:
    with pytest.raises(ArtifactError, match="more than the 1,000 that a prompt may have"):
        PromptStore(backbone, largest=1000).add("a", folders[0])
    with pytest.raises(ArtifactError, match="bytes in memory, but all prompts together may take"):
        PromptStore(backbone, memory=100).add("a", folders[0])


def test_threads_load_a_prompt_once(
    backbone: Backbone, folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    size = PromptStore(backbone).add("x", folders[0]).bytes
    prompts = PromptStore(backbone, memory=size)
    prompts.add("a", folders[0])
    prompts.add("b", folders[1])
    found, begin = [], threading.Barrier(8)

    def ask() -> None:
        begin.wait()
        found.append(prompts.get("a"))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(one) for one in found}) == 1
