"""Opening files that come from elsewhere: regular files alone, and none outside of their folder.

A FIFO blocks whoever opens it, a device never ends or acts when it is opened, and a link leads to
files that somebody who unpacked a folder did not mean to give away.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path

TEXT_BYTES = 16 * 2**20
"""Most bytes of a JSON file that says what stands beside it (a manifest, figures)."""

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


class Refused(OSError):
    """A file is not opened, for what it is; `strerror` says why, without the file's name."""

    def __init__(self, file: Path, reason: str) -> None:
        super().__init__(errno.EINVAL, reason, str(file))

    def __str__(self) -> str:
        return str(self.strerror)


def kind_of(mode: int) -> str:
    """What a file is by its `st_mode`, where that is no regular file."""
    return _KINDS.get(stat.S_IFMT(mode), "a special file")


def open_regular(
    file: Path, *, within: Path | None = None, most: int | None = None
) -> BufferedReader:
    """Open a regular file to read its bytes. Nothing else is ever opened.

    Args:
        file: its path; links are followed.
        within: the folder that links must not lead out of.
        most: bytes that the file may have.

    Raises:
        Refused: it is no regular file, lies outside of `within`, or is larger than `most`.
        OSError: it cannot be opened.
    """
    if "\0" in str(file):
        raise Refused(file, "has a NUL character in its name")
    if within is not None:
        file = _inside(file, within)
    _check_kind(file, file.stat())
    handle = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    opened = os.fdopen(handle, "rb")
    try:
        status = os.fstat(handle)
        _check_kind(file, status)
        if most is not None and status.st_size > most:
            raise _too_large(file, most)
    except OSError:
        opened.close()
        raise
    return opened


def check_regular(file: Path, *, within: Path | None = None) -> None:
    """Raise what `open_regular` raises, for libraries that open a file by its path."""
    open_regular(file, within=within).close()


def read_bytes(file: Path, *, within: Path | None = None, most: int) -> bytes:
    """The bytes of a regular file; the arguments and errors are those of `open_regular`."""
    with open_regular(file, within=within, most=most) as handle:
        content = handle.read(most + 1)  # a file may grow, and those of /proc have no size
    if len(content) > most:
        raise _too_large(file, most)
    return content


def read_text(file: Path, *, within: Path | None = None, most: int = TEXT_BYTES) -> str:
    """The UTF-8 text of a regular file, without a byte order mark.

    Raises:
        OSError: as `open_regular`.
        UnicodeDecodeError: it is not UTF-8.
    """
    return read_bytes(file, within=within, most=most).decode("utf-8-sig")


def check_folder(folder: Path) -> None:
    """Make sure that all below a folder is regular files and folders, and no link leads out of it.

    Raises:
        Refused: something else is there.
        OSError: the folder cannot be read.
    """
    for _ in walk(folder):
        pass


def walk(folder: Path) -> Iterator[Path]:
    """The regular files below a folder in the order of their paths; errors as `check_folder`.

    A link to a folder inside is passed over: what it leads to comes under its own name.
    """
    for place in sorted(folder.rglob("*")):
        status = place.lstat()
        if stat.S_ISLNK(status.st_mode):
            status = _inside(place, folder, by=place).stat()
        if stat.S_ISDIR(status.st_mode):
            continue
        _check_kind(place, status)
        yield place


def check_inside(file: Path, folder: Path) -> None:
    """Raise OSError if a file or folder is a link that leads out of a folder, or to nothing."""
    _inside(file, folder)


def _inside(file: Path, folder: Path, *, by: Path | None = None) -> Path:
    """The real path of a file; Refused if that is outside of a folder."""
    real = Path(os.path.realpath(file, strict=True))
    if not real.is_relative_to(os.path.realpath(folder)):
        named = "" if by is None else f"'{by.relative_to(folder)}' in it "
        raise Refused(
            file,
            f"{named}is a link out of its folder, which is not followed; copy the folder with its "
            "files (cp -rL)",
        )
    return real


def _check_kind(file: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise Refused(file, f"is no regular file but {kind_of(status.st_mode)}")


def _too_large(file: Path, most: int) -> Refused:
    return Refused(file, f"has more than {most:,} bytes")
