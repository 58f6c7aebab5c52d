"""Reading files of a folder of prompts: regular files alone, none from outside, none too large."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def read_bytes(file: Path, *, within: Path, most: int) -> bytes:
    """The bytes of a regular file. Nothing else is ever opened.

    Args:
        file: its path; links are followed.
        within: the folder that links must not lead out of.
        most: bytes that the file may have.

    Raises:
        OSError: it cannot be read, is no regular file, lies elsewhere, or is larger.
    """
    place = Path(os.path.realpath(file))
    if not place.is_relative_to(os.path.realpath(within)):
        raise OSError(errno.EINVAL, f"is a link out of {within}", str(file))
    _check(file, place.stat(), most)
    handle = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as opened:
        _check(file, os.fstat(handle), most)
        content = opened.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"is larger than {most:,} bytes", str(file))
    return content


def _check(file: Path, status: os.stat_result, most: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "is no regular file", str(file))
    if status.st_size > most:
        raise OSError(
            errno.EFBIG, f"has {status.st_size:,} bytes, and at most {most:,} are read", str(file)
        )
