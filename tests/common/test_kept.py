"""What is kept on disk: made once, whole or not there, and never too much of it."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from foreword.common import kept as keeping
from foreword.common.kept import kept, key_of
from foreword.errors import DataError, UserError


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("FOREWORD_CACHE", str(tmp_path))
    return tmp_path / "data"


def writes(text: str, made: list[str]) -> Any:
    def make(folder: Path) -> Mapping[str, Any]:
        made.append(text)
        (folder / "text").write_text(text, "utf-8")
        return {"says": text}

    return make


def test_keys() -> None:
    assert key_of("a", ["b"]) == key_of("a", ["b"])
    assert len({key_of("a", ["b"]), key_of("a", "b"), key_of("a", []), key_of("ab")}) == 4
    with pytest.raises(TypeError):
        key_of(object())


def test_made_once(cache: Path) -> None:
    made: list[str] = []
    first = kept("k", writes("one", made))
    again = kept("k", writes("two", made))
    assert first == again
    assert (first.folder, first.about) == (cache / "k", {"says": "one"})
    assert (first.folder / "text").read_text("utf-8") == "one"
    assert made == ["one"]
    assert [place.name for place in cache.iterdir()] == ["k"]


@pytest.mark.parametrize("broken", ["text", "about.json", "shorter", "nonsense", "a file"])
def test_what_is_not_whole_is_made_again(cache: Path, broken: str) -> None:
    made: list[str] = []
    folder = kept("k", writes("one", made)).folder
    match broken:
        case "shorter":
            (folder / "text").write_text("on", "utf-8")
        case "nonsense":
            (folder / "about.json").write_text('{"files": [1]}', "utf-8")
        case "a file":
            keeping.shutil.rmtree(folder)
            folder.parent.mkdir(exist_ok=True)
        case name:
            (folder / name).unlink()
    entry = kept("k", writes("two", made))
    assert (entry.folder / "text").read_text("utf-8") == "two"
    assert made == ["one", "two"]


def test_a_mistake_leaves_nothing(cache: Path) -> None:
    def make(folder: Path) -> Mapping[str, Any]:
        (folder / "half").write_text("x", "utf-8")
        raise DataError("line 3")

    with pytest.raises(DataError, match="line 3"):
        kept("k", make)
    assert list(cache.iterdir()) == []


def test_two_at_once(cache: Path) -> None:
    """Both make it; each has a whole one, and one stays."""
    made: list[str] = []
    meet = threading.Barrier(2)

    def make(name: str) -> Any:
        def write(folder: Path) -> Mapping[str, Any]:
            about = writes("same", made)(folder)
            meet.wait(20)
            return about

        return write

    entries: list[Any] = []
    threads = [
        threading.Thread(target=lambda n=name: entries.append(kept("k", make(n)))) for name in "ab"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == ["same", "same"]
    assert entries[0] == entries[1]
    assert [place.name for place in cache.iterdir()] == ["k"]


def test_where_nothing_can_be_kept(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "data").write_text("no folder", "utf-8")
    made: list[str] = []
    entry = kept("k", writes("one", made))
    assert (entry.folder / "text").read_text("utf-8") == "one"
    assert entry.about == {"says": "one"}

    def full(folder: Path) -> Mapping[str, Any]:
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match="No space left on device; name a folder with room"):
        kept("k", full)


def test_the_least_recently_used_goes(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    for number, name in enumerate("abc"):
        kept(name, writes("x" * 100, made))
        os.utime(cache / name / "about.json", (number, number))
    kept("a", writes("again", made))  # used just now
    old = cache / ".d.1-1.tmp"
    old.mkdir()
    os.utime(old, (1, 1))
    young = cache / ".e.1-1.tmp"
    young.mkdir()
    size = sum(file.stat().st_size for file in (cache / "a").iterdir())
    monkeypatch.setattr(keeping, "MOST_BYTES", 3 * size)
    kept("f", writes("x" * 100, made))
    assert sorted(place.name for place in cache.iterdir()) == [".e.1-1.tmp", "a", "c", "f"]
    monkeypatch.setattr(keeping, "MOST_BYTES", 1)
    kept("g", writes("x", made))
    assert sorted(place.name for place in cache.iterdir()) == [".e.1-1.tmp", "g"]
