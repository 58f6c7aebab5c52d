"""A folder of prompts that changes while it is served."""

from __future__ import annotations

import os
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exported import write
from foreword_vllm import PromptError
from foreword_vllm.folder import PromptFolder
from foreword_vllm.prompts import is_name


def test_prompts_are_added_replaced_and_removed(tmp_path) -> None:
    folder = PromptFolder(tmp_path)
    assert folder.get("birds") is None
    first = write(tmp_path, "birds", 5)
    before = folder.get("birds")
    assert before is not None
    assert before.sha256 == first
    assert folder.get("birds") is before
    second = write(tmp_path, "birds", 6, seed=1)
    after = folder.get("birds")
    assert after is not None
    assert (after.sha256, after.length) == (second, 6)
    write(tmp_path, "fish")
    assert folder.names() == ["birds", "fish"]
    shutil.rmtree(tmp_path / "birds")
    assert (folder.get("birds"), folder.names()) == (None, ["fish"])


def test_a_replacement_of_the_same_size_and_time_counts(tmp_path) -> None:
    """A copy that keeps the times is another file all the same."""
    folder = PromptFolder(tmp_path)
    write(tmp_path, "birds", seed=0)
    was = (tmp_path / "birds" / "prompt.json").stat()
    before = folder.get("birds")
    second = write(tmp_path, "birds", seed=1)
    os.utime(tmp_path / "birds" / "prompt.json", ns=(was.st_atime_ns, was.st_mtime_ns))
    after = folder.get("birds")
    assert before is not None
    assert after is not None
    assert after.sha256 == second != before.sha256


ODD = [
    "",
    ".",
    "..",
    "../prompts/birds",
    "birds/",
    "/birds",
    "birds\0",
    "a b",
    "ä",
    ".hidden",
    "x" * 200,
]


@pytest.mark.parametrize("name", ODD)
def test_odd_names_are_nobody(name, tmp_path) -> None:
    write(tmp_path, "birds")
    (tmp_path / ".hidden").mkdir()
    assert PromptFolder(tmp_path).get(name) is None


@pytest.mark.parametrize("name", [None, 1, ["birds"], {"birds": 1}, True, b"birds"])
def test_what_is_no_text_is_nobody(name, tmp_path) -> None:
    write(tmp_path, "birds")
    assert PromptFolder(tmp_path).get(name) is None


@given(st.text(max_size=12))
def test_names_are_single_parts_of_a_path(name) -> None:
    if is_name(name):
        assert os.path.basename(name) == name  # noqa: PTH119
        assert name not in ("", ".", "..")
        assert name.isascii()


def test_other_things_in_the_folder_are_passed_over(tmp_path) -> None:
    write(tmp_path, "birds")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "prompt.json").mkdir()
    folder = PromptFolder(tmp_path)
    assert folder.names() == ["birds"]
    assert folder.get("empty") is None
    assert folder.get("file") is None


def test_damage_is_said(tmp_path) -> None:
    write(tmp_path, "birds", length=0)
    with pytest.raises(PromptError, match="length is 0"):
        PromptFolder(tmp_path).get("birds")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "pipe").mkdir()
    (tmp_path / "fifo").rename(tmp_path / "pipe" / "prompt.json")
    with pytest.raises(PromptError, match="no regular file"):
        PromptFolder(tmp_path).get("pipe")


def test_there_must_be_a_folder(tmp_path) -> None:
    with pytest.raises(PromptError, match="is no folder of prompts"):
        PromptFolder(tmp_path / "none")
