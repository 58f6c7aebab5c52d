"""Only regular files are opened, none outside of its folder, and none larger than it may be."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from foreword.common import opening

Maker = Callable[[Path], object]


def _socket(place: Path) -> None:
    here = Path.cwd()
    os.chdir(place.parent)  # a socket's path has a hundred bytes at most
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(place.name)
    finally:
        os.chdir(here)


ODD: dict[str, Maker] = {
    "a FIFO": os.mkfifo,
    "a socket": _socket,
    "a character device": lambda place: place.symlink_to("/dev/zero"),
    "a folder": lambda place: place.mkdir(),
}


@pytest.mark.parametrize("kind", ODD)
def test_what_is_no_regular_file_is_not_opened(kind: str, tmp_path: Path) -> None:
    place = tmp_path / "place"
    ODD[kind](place)
    with pytest.raises(opening.Refused, match=f"^is no regular file but {kind}$"):
        opening.open_regular(place)


def test_sizes_are_bounded_before_reading(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 10)
    assert opening.read_bytes(file, most=10) == b"x" * 10
    with pytest.raises(opening.Refused, match="has more than 9 bytes"):
        opening.read_bytes(file, most=9)
    os.truncate(file, 2**40)  # sparse
    with pytest.raises(opening.Refused, match="has more than"):
        opening.read_text(file)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="this system has no /proc")
def test_sizes_are_bounded_while_reading() -> None:
    endless = Path("/proc/self/maps")
    assert endless.stat().st_size == 0, "what the system says before it is read"
    with pytest.raises(opening.Refused, match="has more than 5 bytes"):
        opening.read_bytes(endless, most=5)


def test_links_never_lead_out_of_a_folder(tmp_path: Path) -> None:
    folder, outside = tmp_path / "folder", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    (outside / "file").write_text("x", encoding="utf-8")
    (folder / "own").write_text("y", encoding="utf-8")
    (folder / "inside").symlink_to("own")
    (folder / "door").symlink_to(outside)
    (folder / "link").symlink_to("../outside/file")
    (folder / "loop").symlink_to("loop")
    assert opening.read_text(folder / "inside", within=folder) == "y"
    assert opening.read_text(folder / "link") == "x", "where no folder bounds it"
    (tmp_path / "named").symlink_to(folder)
    assert opening.read_text(tmp_path / "named" / "own", within=tmp_path / "named") == "y"
    for name in ("link", "door/file"):
        with pytest.raises(opening.Refused, match="is a link out of its folder"):
            opening.open_regular(folder / name, within=folder)
    with pytest.raises(OSError, match="symbolic links"):
        opening.open_regular(folder / "loop", within=folder)
    with pytest.raises(FileNotFoundError):
        opening.open_regular(folder / "nothing", within=folder)


def test_names_that_no_system_takes(tmp_path: Path) -> None:
    with pytest.raises(opening.Refused, match="NUL character in its name"):
        opening.open_regular(tmp_path / "a\0b")
    with pytest.raises(OSError, match="too long"):
        opening.open_regular(tmp_path / ("x" * 5000), within=tmp_path)


def test_folders_are_walked_without_leaving_them(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    for name in ("b", "deep/a"):
        (folder / name).touch()
    (folder / "again").symlink_to("deep")
    assert list(opening.walk(folder)) == [folder / "b", folder / "deep" / "a"]
    opening.check_folder(folder)
    os.mkfifo(folder / "deep" / "pipe")
    with pytest.raises(opening.Refused, match="is no regular file but a FIFO") as refused:
        opening.check_folder(folder)
    assert refused.value.filename == str(folder / "deep" / "pipe")
    (folder / "deep" / "pipe").unlink()
    (folder / "deep" / "out").symlink_to(tmp_path)
    with pytest.raises(opening.Refused, match=r"'deep/out' in it is a link out of its folder"):
        opening.check_folder(folder)
