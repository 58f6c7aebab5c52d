"""Checkpoints on disk: whole or not at all, whatever the moment; a damaged one is passed over."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from foreword.errors import RunError
from foreword.training.storage import CONTENT, LATEST, STATE, Storage, read_checkpoint

OPERATIONS = ("open", "write", "fsync", "replace", "mkdir", "unlink", "rmdir", "chmod", "close")


class Crash(BaseException):
    """The process is gone."""


def tensors(step: int) -> dict[str, Tensor]:
    return {"a": torch.full((3, 5), float(step)), "b": torch.tensor(step)}


def save(storage: Storage, step: int) -> Path:
    return storage.save(step, tensors(step), {"x": [step, 0.1, None, "ż"]})


def newest(folder: Path) -> int:
    """The step of the first candidate that can be read, whose content is checked."""
    for place in Storage(folder).candidates():
        try:
            found = read_checkpoint(place)
        except ValueError:
            continue
        assert found.values["x"] == [found.step, 0.1, None, "ż"]
        assert {k: v.tolist() for k, v in found.tensors.items()} == {
            k: v.tolist() for k, v in tensors(found.step).items()
        }
        return found.step
    return -1


@contextmanager
def failing(
    at: int, fail: Callable[[str], BaseException], *, stays: bool
) -> Iterator[list[tuple[str, Any]]]:
    """File operation number `at` fails, after half of it where it is a write; `stays`: all after
    it fail too, as they do for a process that is gone. Gives the operations that were begun."""
    begun: list[tuple[str, Any]] = []
    real = {name: getattr(os, name) for name in OPERATIONS}

    def wrap(name: str) -> Callable[..., Any]:
        def operation(*arguments: Any, **options: Any) -> Any:
            begun.append((name, arguments[0]))
            if len(begun) == at + 1 or (stays and len(begun) > at + 1):
                if name == "write" and len(begun) == at + 1:
                    real["write"](arguments[0], arguments[1][: len(arguments[1]) // 2])
                if name == "close":
                    real["close"](*arguments)
                raise fail(name)
            return real[name](*arguments, **options)

        return operation

    with pytest.MonkeyPatch.context() as patch:
        for name in OPERATIONS:
            patch.setattr(os, name, wrap(name))
        yield begun


def full(_: str) -> OSError:
    return OSError(errno.ENOSPC, "No space left on device")


def test_save_and_read(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "checkpoints")
    assert storage.candidates() == []
    names = [save(storage, step).name for step in (0, 5, 1_234_567)]
    assert names == ["step-000000", "step-000005", "step-1234567"]
    assert sorted(place.name for place in storage.folder.iterdir()) == [
        "latest",
        "step-000005",
        "step-1234567",
    ]
    assert (storage.folder / LATEST).read_text("utf-8") == "step-1234567\n"
    assert [place.name for place in storage.candidates()] == ["step-1234567", "step-000005"]
    assert newest(storage.folder) == 1_234_567
    assert save(storage, 1_234_567).name == "step-1234567-2"
    assert newest(storage.folder) == 1_234_567
    json.loads(
        (storage.candidates()[0] / CONTENT).read_text("utf-8"),
        parse_constant=lambda name: pytest.fail(f"{name} is no JSON"),
    )
    storage.remove()
    assert list(tmp_path.iterdir()) == []
    storage.remove()


def test_a_crash_at_any_operation_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    at, found = 0, set()
    while True:
        folder = tmp_path / str(at)
        storage = Storage(folder)
        save(storage, 1)
        save(storage, 2)
        with suppress(Crash), failing(at, Crash, stays=True) as begun:
            save(storage, 3)
        step = newest(folder)
        assert step in (2, 3), f"after a crash at operation {at}, {begun[at]}"
        found.add(step)
        again = Storage(folder)
        again.current = again.candidates()[0]
        assert save(again, 4).name == "step-000004"
        assert newest(folder) == 4
        kept = {place.name for place in folder.iterdir()}
        assert kept == {LATEST, f"step-{step:06d}", "step-000004"}
        if len(begun) <= at:
            break
        at += 1
    assert found == {2, 3}
    assert at > 20


def test_a_full_disk_at_any_operation(tmp_path: Path) -> None:
    """A clear error, the last good checkpoint as it was, nothing half-written left."""
    at, refused = 0, 0
    while True:
        folder = tmp_path / str(at)
        storage = Storage(folder)
        save(storage, 1)
        save(storage, 2)
        before = {place.name for place in folder.iterdir()}
        with failing(at, full, stays=False) as begun:
            said = ""
            try:
                save(storage, 3)
            except RunError as error:
                said = str(error)
        if said:
            refused += 1
            for part in (str(folder), "step 3 cannot be written", "No space", "step-000002"):
                assert part in said
            left = {place.name for place in folder.iterdir()}
            assert newest(folder) == (2 if left == before else 3)
        else:
            assert newest(folder) == 3
        if len(begun) <= at:
            break
        at += 1
    assert refused > 10


def test_the_first_checkpoint_on_a_full_disk(tmp_path: Path) -> None:
    with failing(3, full, stays=False), pytest.raises(RunError, match="there is none before it"):
        save(Storage(tmp_path / "checkpoints"), 0)


def test_what_is_renamed_is_synced_before(tmp_path: Path) -> None:
    """Both files and their folder before the rename, the rename before the pointer."""
    storage = Storage(tmp_path / "checkpoints")
    save(storage, 1)
    with failing(10_000, full, stays=False) as begun:
        save(storage, 2)
    names = [name for name, _ in begun]
    first = names.index("replace")
    assert names[:first].count("fsync") == 3
    pointer = names.index("replace", first + 1)
    assert names[first:pointer].count("fsync") == 2
    assert "fsync" in names[pointer:]
    assert set(names[:pointer]) & {"unlink", "rmdir"} == set(), "the old one goes last"


def test_short_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: real(handle, data[:7]))
    storage = Storage(tmp_path / "checkpoints")
    save(storage, 1)
    assert newest(storage.folder) == 1
    monkeypatch.setattr(os, "write", lambda handle, data: 0)
    with pytest.raises(RunError, match=r"step 2 cannot be written.*step-000001, is still there"):
        save(storage, 2)
    assert newest(storage.folder) == 1


def flip(file: Path, at: int = -1) -> None:
    raw = bytearray(file.read_bytes())
    raw[at] ^= 1
    file.write_bytes(raw)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda f: flip(f / STATE), "state.safetensors is not what was written"),
        (lambda f: flip(f / STATE, 9), "state.safetensors is not what was written"),
        (lambda f: (f / STATE).unlink(), "state.safetensors: No such file"),
        (lambda f: (f / STATE).write_bytes(b""), "state.safetensors is not what was written"),
        (lambda f: (f / CONTENT).unlink(), "checkpoint.json: No such file"),
        (lambda f: (f / CONTENT).write_text("{", encoding="utf-8"), "Expecting"),
        (lambda f: (f / CONTENT).write_text("[]", encoding="utf-8"), "is no object"),
        (lambda f: (f / CONTENT).write_text("{}", encoding="utf-8"), "not what was written"),
        (lambda f: (f / CONTENT).write_bytes(b"\xff\xfe"), "decode"),
        (
            lambda f: (f / CONTENT).write_text(
                (f / CONTENT).read_text("utf-8").replace('"step": 2', '"step": 3'), "utf-8"
            ),
            "checkpoint.json is not what was written",
        ),
    ],
)
def test_a_damaged_one_is_passed_over(
    damage: Callable[[Path], object], said: str, tmp_path: Path
) -> None:
    storage = Storage(tmp_path / "checkpoints")
    save(storage, 1)
    damage(save(storage, 2))
    with pytest.raises(ValueError, match=said):
        read_checkpoint(storage.candidates()[0])
    assert newest(storage.folder) == 1


@pytest.mark.parametrize("text", ["", "step-000001", "step-9", "../..", "\0", "latest"])
def test_the_pointer_does_not_have_to_be_right(text: str, tmp_path: Path) -> None:
    storage = Storage(tmp_path / "checkpoints")
    save(storage, 1)
    save(storage, 2)
    (storage.folder / LATEST).write_text(text, encoding="utf-8")
    assert newest(storage.folder) == (1 if text == "step-000001" else 2)
    (storage.folder / LATEST).unlink()
    assert newest(storage.folder) == 2


def test_a_later_format_is_not_guessed_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage(tmp_path / "checkpoints")
    with monkeypatch.context() as patch:
        patch.setattr("foreword.training.storage.FORMAT", "2.0")
        place = save(storage, 1)
    with pytest.raises(ValueError, match=r"format 2\.0 is not known"):
        read_checkpoint(place)
