"""A folder of prompts kept as a store has it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import fsspec
import pytest

from exported import SHAPE, write
from foreword_vllm import PromptError
from foreword_vllm.folder import PromptFolder
from foreword_vllm.mirror import Changes, main, mirror
from foreword_vllm.tensors import read_keys_values

MEMORY = "memory://bucket/prompts"


def upload(folder: Path, name: str) -> None:
    """A prompt of a local folder into the store."""
    store = fsspec.filesystem("memory")
    for file in (folder / name).iterdir():
        store.pipe_file(f"/bucket/prompts/{name}/{file.name}", file.read_bytes())


@pytest.fixture
def here(tmp_path):
    """What is uploaded, and what is mirrored into."""
    store = fsspec.filesystem("memory")
    store.store.clear()
    return tmp_path / "made", tmp_path / "mirrored"


def test_prompts_are_copied_replaced_and_removed(here) -> None:
    made, mirrored = here
    first = write(made, "birds", 5)
    write(made, "fish", 6, seed=1)
    for name in ("birds", "fish"):
        upload(made, name)
    assert mirror(MEMORY, mirrored) == Changes(copied=("birds", "fish"))
    folder = PromptFolder(mirrored)
    assert folder.names() == ["birds", "fish"]
    assert read_keys_values(mirrored / "birds", first, SHAPE).length == 5
    assert mirror(MEMORY, mirrored) == Changes()

    shutil.rmtree(made / "birds")
    second = write(made, "birds", 7, seed=2)
    upload(made, "birds")
    fsspec.filesystem("memory").rm("/bucket/prompts/fish", recursive=True)
    assert mirror(MEMORY, mirrored) == Changes(copied=("birds",), removed=("fish",))
    prompt = folder.get("birds")
    assert prompt is not None
    assert prompt.sha256 == second
    assert folder.names() == ["birds"]
    for sha256, length in ((first, 5), (second, 7)):  # one on its way finds the last one
        assert read_keys_values(mirrored / "birds", sha256, SHAPE).length == length


def test_a_shared_folder_is_a_source(here) -> None:
    made, mirrored = here
    write(made, "birds")
    assert mirror(str(made), mirrored) == Changes(copied=("birds",))
    was = (made / "birds" / "prompt.json").stat()
    write(made, "birds", seed=3)
    os.utime(made / "birds" / "prompt.json", ns=(was.st_atime_ns, was.st_mtime_ns + 10**9))
    assert mirror(str(made), mirrored) == Changes(copied=("birds",))


def test_other_things_are_left_alone(here) -> None:
    made, mirrored = here
    write(made, "birds")
    write(mirrored, "own")
    upload(made, "birds")
    store = fsspec.filesystem("memory")
    for path in ("prompt.json", "deep/er/prompt.json", ".odd/prompt.json", "birds/more.bin"):
        store.pipe_file(f"/bucket/prompts/{path}", b"{}")
    assert mirror(MEMORY, mirrored) == Changes(copied=("birds",))
    store.rm("/bucket/prompts/birds", recursive=True)
    assert mirror(MEMORY, mirrored).removed == ("birds",)
    assert PromptFolder(mirrored).names() == ["own"]


def test_what_is_not_whole_yet_is_tried_again(here) -> None:
    """The statement came before its tensors: the old prompt stays until both are there."""
    made, mirrored = here
    before = write(made, "birds", 5)
    upload(made, "birds")
    mirror(MEMORY, mirrored)
    store = fsspec.filesystem("memory")
    shutil.rmtree(made / "birds")
    after = write(made, "birds", 6, seed=4)
    statement = (made / "birds" / "prompt.json").read_bytes()
    store.pipe_file("/bucket/prompts/birds/prompt.json", statement)
    assert mirror(MEMORY, mirrored) == Changes(failed=("birds",))
    prompt = PromptFolder(mirrored).get("birds")
    assert prompt is not None
    assert prompt.sha256 == before
    upload(made, "birds")
    assert mirror(MEMORY, mirrored) == Changes(copied=("birds",))
    prompt = PromptFolder(mirrored).get("birds")
    assert prompt is not None
    assert prompt.sha256 == after


def test_statements_lead_nowhere_else(here) -> None:
    made, mirrored = here
    write(made, "birds", sha256="../../../etc/passwd")
    upload(made, "birds")
    assert mirror(MEMORY, mirrored) == Changes(failed=("birds",))
    assert not (mirrored / "birds").exists()


def test_the_command(here, capsys) -> None:
    made, mirrored = here
    write(made, "birds")
    for expected in (0, 0):
        with pytest.raises(SystemExit) as end:
            main([str(made), str(mirrored)])
        assert end.value.code == expected
    with pytest.raises(SystemExit) as end:
        main(["nothing://bucket", str(mirrored)])
    assert end.value.code == 1
    with pytest.raises(PromptError, match="cannot be opened"):
        mirror("nothing://bucket", mirrored)
