"""Files appear whole or not at all."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from foreword.common import files
from foreword.errors import RunError, UserError


def test_write_text(tmp_path: Path) -> None:
    file = tmp_path / "a" / "b" / "file.txt"
    files.write_text(file, "one\nżółć\n")
    assert file.read_bytes() == "one\nżółć\n".encode()
    files.write_text(file, "two")
    assert file.read_text(encoding="utf-8") == "two"
    assert list(file.parent.iterdir()) == [file]


def test_write_text_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file.txt"
    files.write_text(file, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"file\.txt: cannot be written: No space left on device"):
        files.write_text(file, "new")
    assert file.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_write_text_where_a_file_stands_for_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x", encoding="utf-8")
    with pytest.raises(RunError, match="cannot be written"):
        files.write_text(tmp_path / "a" / "b", "x")


def test_new_folder(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "folder"
    with files.new_folder(folder) as temporary:
        (temporary / "file").write_text("x", encoding="utf-8")
        assert not folder.exists()
        assert temporary.parent == folder.parent
    assert [file.name for file in folder.iterdir()] == ["file"]
    assert [place.name for place in folder.parent.iterdir()] == ["folder"]


def test_new_folder_takes_an_empty_ones_place(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with files.new_folder(folder) as temporary:
        (temporary / "file").touch()
    assert (folder / "file").exists()


def test_new_folder_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(error: Exception) -> None:
        with files.new_folder(tmp_path / "folder") as temporary:
            (temporary / "file").touch()
            raise error

    with pytest.raises(KeyError):
        fail(KeyError("x"))
    with pytest.raises(RunError, match="folder: cannot be written: full"):
        fail(OSError(28, "full"))
    assert list(tmp_path.iterdir()) == []


def test_occupied_folders_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    files.refuse_occupied(folder)
    files.refuse_occupied(tmp_path / "nothing")
    (folder / "file").touch()
    for place in (folder, folder / "file"):
        with pytest.raises(UserError, match="is there already and is not empty"):
            files.refuse_occupied(place)
        with pytest.raises(UserError, match="name another folder"), files.new_folder(place):
            pass
    assert [file.name for file in folder.iterdir()] == ["file"]


def test_sha256(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 100_000)
    assert files.sha256(file) == hashlib.sha256(b"x" * 100_000).hexdigest()
