"""`--out` writes into what is there, through links, and never replaces what is no file."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from foreword.cli.app import app
from foreword.cli.destination import destination
from foreword.common import files
from foreword.errors import RunError, UserError


def test_a_file_appears_in_one_move(tmp_path: Path) -> None:
    out = tmp_path / "new" / ("火" * 80)  # 240 bytes: no room for a longer temporary name
    to = destination(out)
    assert not out.parent.exists(), "nothing is made before there is something to write"
    to.write("one\n")
    assert out.read_text(encoding="utf-8") == "one\n"
    assert list(out.parent.iterdir()) == [out]


def test_a_file_keeps_its_mode(tmp_path: Path) -> None:
    out = tmp_path / "private"
    out.touch(0o600)
    destination(out).write("x")
    assert stat.S_IMODE(out.stat().st_mode) == 0o600


@pytest.mark.parametrize("there", [True, False])
def test_links_are_written_through(there: bool, tmp_path: Path) -> None:
    real, out = tmp_path / "deep" / "real", tmp_path / "out"
    real.parent.mkdir()
    if there:
        real.write_text("old", encoding="utf-8")
    out.symlink_to("deep/real")
    destination(out).write("new")
    assert out.is_symlink()
    assert real.read_text(encoding="utf-8") == "new"


def test_devices_stay_devices() -> None:
    before = Path("/dev/null").stat()
    destination(Path("/dev/null")).write("x")
    assert Path("/dev/null").stat().st_rdev == before.st_rdev
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_device_that_is_full() -> None:
    with pytest.raises(RunError, match=r"/dev/full: cannot be written: No space left"):
        destination(Path("/dev/full")).write("x")


def test_fifos_are_written_as_it_comes(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    found: list[str] = []

    def read() -> None:
        with pipe.open(encoding="utf-8") as handle:
            found.extend([handle.readline(), handle.readline()])

    to = destination(pipe)
    assert to.streams
    reader = threading.Thread(target=read)
    reader.start()
    to.write("one\n")
    to.write("two\n")
    reader.join(10)
    assert found == ["one\n", "two\n"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.parametrize("out", [None, "-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_standard_output(out: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    to = destination(None if out is None else Path(out))
    assert to.is_standard_output
    to.write("x\n")
    assert capsys.readouterr().out == "x\n"


@contextmanager
def descriptor(file: Path) -> Iterator[int]:
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        yield handle
    finally:
        os.close(handle)


def test_descriptors_go_on_where_they_are(tmp_path: Path) -> None:
    """As `3>>file --out /dev/fd/3`: what stands there is kept, and the file is not replaced."""
    file = tmp_path / "file"
    file.write_text("before\n", encoding="utf-8")
    with descriptor(file) as handle:
        destination(Path(f"/dev/fd/{handle}")).write("after\n")
    assert file.read_text(encoding="utf-8") == "before\nafter\n"
    with pytest.raises(UserError, match=f"/dev/fd/{handle}: cannot be written"):
        destination(Path(f"/dev/fd/{handle}"))


def test_the_file_that_standard_output_goes_to(tmp_path: Path) -> None:
    file = tmp_path / "file"
    kept = os.dup(1)
    try:
        with descriptor(file) as handle:
            os.dup2(handle, 1)
            found = destination(file).is_standard_output
    finally:
        os.dup2(kept, 1)
        os.close(kept)
    assert found


def _fails_to_load(*_: Any, **__: Any) -> None:
    raise AssertionError("work was begun")


ODD = {
    "folder": "is a folder",
    "loop": "cannot be written",
    "under-a-file/x": "Not a directory",
    "x" * 300: "File name too long",
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("verb", ["generate", "predict", "evaluate"])
def test_what_cannot_be_written_is_refused_before_work(
    verb: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foreword.cli.using.load_artifact", _fails_to_load)
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "under-a-file").touch()
    given = ["--data", "x.jsonl"] if verb == "evaluate" else ["--text", "x"]
    done = CliRunner().invoke(app, [verb, "none", *given, "--out", str(tmp_path / name)])
    assert isinstance(done.exception, UserError)
    assert ODD[name] in str(done.exception)


def test_folders_are_made_where_a_link_leads(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "empty").mkdir()
    (tmp_path / "also").symlink_to("empty")
    for name, real in (("link", "real"), ("also", "empty")):
        with files.new_folder(tmp_path / name) as temporary:
            (temporary / "x").touch()
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / real / "x").exists()
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UserError, match="leads to itself"):
        files.refuse_occupied(tmp_path / "loop")
