"""The log is cut back to a checkpoint, and read again up to it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from foreword.errors import RunError
from foreword.training.log import Log, read_log


def test_cut_back_and_appended_to(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    with Log(file) as log:
        log({"step": 1, "loss": 0.1})
        mark = log.mark()
        log({"step": 2, "loss": 0.2})
        later = log.mark()
    assert read_log(file, later) == [{"step": 1, "loss": 0.1}, {"step": 2, "loss": 0.2}]
    whole = file.read_bytes()
    with file.open("ab") as handle:
        handle.write(b'{"step": 3, "lo')
    assert read_log(file, mark) == [{"step": 1, "loss": 0.1}]
    with Log(file, mark) as log:
        log({"step": 2, "loss": 0.2})
        assert log.mark() == later
    assert file.read_bytes() == whole
    with Log(file):
        pass
    assert file.read_bytes() == b""


def test_another_log_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    with Log(file) as log:
        log({"step": 1})
        mark = log.mark()
    for content in (b"", file.read_bytes().replace(b"1", b"2")):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"log\.jsonl is not what was written"):
            read_log(file, mark)


def test_processes_that_do_not_write(tmp_path: Path) -> None:
    with Log(tmp_path / "log.jsonl", writes=False) as log:
        log({"step": 1})
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "log.jsonl"
    with Log(file) as log:

        def full(*_: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "write", full)
        with pytest.raises(RunError, match=r"log\.jsonl: cannot be written: No space left"):
            log({"step": 1})
    with pytest.raises(RunError, match="cannot be written"):
        Log(tmp_path / "none" / "log.jsonl")
