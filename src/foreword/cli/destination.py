"""Where `--out` writes: a file, what a link leads to, a device, a FIFO, or standard output.

The path is looked at before the work is done. A regular file appears whole or not at all. What
cannot be renamed over (a device, a FIFO, a descriptor such as `/dev/stdout`) is written to as it
stands, as the shell's `>` would.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from foreword.cli.output import ReaderGone, emit
from foreword.common import files, opening
from foreword.common.run_files import refuse_unwritable
from foreword.errors import RunError, UserError

_DESCRIPTORS = re.compile(r"(/dev|/proc/(self|\d+))/fd/(\d+)")
_STANDARD_OUTPUT = 1


@dataclass(frozen=True)
class Destination:
    """What `--out` names.

    Attributes:
        out: as it was given; None for standard output by default.
        file: the regular file that appears in one move; None where text is written as it comes.
        write: takes text, in parts where it is written as it comes.
    """

    out: Path | None
    file: Path | None
    write: Callable[[str], None]

    @property
    def streams(self) -> bool:
        """Whether text is written as it comes."""
        return self.file is None

    @property
    def is_standard_output(self) -> bool:
        """Whether it goes where results are printed."""
        return self.write is emit


def destination(out: Path | None) -> Destination:
    """Look at where something is to be written; nothing is made or opened yet.

    Args:
        out: what `--out` gives; `-` and None are standard output.

    Raises:
        UserError: it is a folder, a block device or a socket, or cannot be written.
    """
    if out is None or str(out) == "-":
        return Destination(out, None, emit)
    try:
        status = _stat(out)
        descriptor = _descriptor(out)
        if descriptor == _STANDARD_OUTPUT or _is_standard_output(status):
            return Destination(out, None, emit)
        if descriptor is not None:
            os.fstat(descriptor)
            return Destination(out, None, _to_descriptor(out, descriptor))
        if status is None or stat.S_ISREG(status.st_mode):
            file = Path(os.path.realpath(out))
            _refuse_unwritable(out, file)
            return Destination(out, file, lambda text: files.replace_text(file, text))
    except OSError as error:
        raise UserError(f"{out}: cannot be written: {error.strerror or error}") from error
    if not (stat.S_ISCHR(status.st_mode) or stat.S_ISFIFO(status.st_mode)):
        kind = opening.kind_of(status.st_mode)
        raise UserError(f"{out}: is {kind}; give the name of a file, or - for standard output")
    if not os.access(out, os.W_OK):
        raise UserError(f"{out}: cannot be written: {os.strerror(errno.EACCES)}")
    return Destination(out, None, _to_special(out))


def _refuse_unwritable(out: Path, file: Path) -> None:
    if os.path.islink(file):  # noqa: PTH114
        raise UserError(f"{out}: cannot be written: is a link that leads to itself")
    if file.exists() and not os.access(file, os.W_OK):
        raise UserError(f"{out}: cannot be written: {os.strerror(errno.EACCES)}")
    refuse_unwritable(file.parent)


def _stat(out: Path) -> os.stat_result | None:
    """What a path leads to; None where there is nothing yet."""
    try:
        return out.stat()
    except FileNotFoundError:
        return None


def _descriptor(out: Path) -> int | None:
    """The number of the descriptor that a path names, as /dev/stdout and /dev/fd/3 do."""
    place = os.path.abspath(out)  # noqa: PTH100  # no link is followed
    for _ in range(8):
        match = _DESCRIPTORS.fullmatch(place)
        if match and match[2] in (None, "self", str(os.getpid())):
            return int(match[3])
        if not os.path.islink(place):  # noqa: PTH114
            return None
        place = os.path.normpath(os.path.join(os.path.dirname(place), os.readlink(place)))  # noqa: PTH115, PTH118, PTH120
    return None


def _is_standard_output(status: os.stat_result | None) -> bool:
    """Whether a file is the one that standard output goes to (`--out x > x`)."""
    try:
        return status is not None and os.path.samestat(status, os.fstat(_STANDARD_OUTPUT))
    except OSError:
        return False


def _to_descriptor(out: Path, descriptor: int) -> Callable[[str], None]:
    def write(text: str) -> None:
        _write_all(out, descriptor, text)

    return write


def _to_special(out: Path) -> Callable[[str], None]:
    """A device or FIFO, opened when the first text is there: a FIFO waits for its reader."""
    opened: list[int] = []

    def write(text: str) -> None:
        if not opened:
            try:
                opened.append(os.open(out, os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC))
            except OSError as error:
                raise RunError(f"{out}: cannot be written: {error.strerror}") from error
        _write_all(out, opened[0], text)

    return write


def _write_all(out: Path, handle: int, text: str) -> None:
    try:
        files.write_all(handle, text.encode())
    except BrokenPipeError as error:
        raise ReaderGone from error
    except OSError as error:
        raise RunError(f"{out}: cannot be written: {error.strerror}") from error
