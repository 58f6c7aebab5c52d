"""Errors of the operating system, and of names that it cannot take, as our own."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from foreword.errors import ForewordError, RunError, UserError

_OF_THE_MACHINE = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EIO,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.ENODEV,
        errno.ENXIO,
        errno.ESTALE,
        errno.ETXTBSY,
    }
)
"""What the machine lacks, rather than what the user gave."""


def as_our_own(error: BaseException) -> ForewordError | None:
    """What the command line says of an exception; None where it is a mistake of the program.

    A name that does not lead to what was asked for (no such file, too long, a loop of links, no
    permission, half a character) is the user's to mend; a disk that is full or broken is not.
    """
    if isinstance(error, ForewordError):
        return error
    if isinstance(error, OSError) and error.errno is not None:
        names = [os.fspath(n) for n in (error.filename, error.filename2) if _is_name(n)]
        shown = ", ".join(os.fsdecode(name) for name in names)
        kind = RunError if error.errno in _OF_THE_MACHINE else UserError
        return kind(f"{shown}: {error.strerror}" if shown else str(error.strerror))
    if isinstance(error, UnicodeEncodeError) and error.reason == "surrogates not allowed":
        return UserError(
            f"a text or a name holds half a character ({error.object[error.start]!r}): it was not "
            f"UTF-8: {error.object!r}"
        )
    if isinstance(error, RuntimeError) and str(error).startswith("Symlink loop from"):
        return UserError(f"{str(error).removeprefix('Symlink loop from ')}: a loop of links")
    return None


def _is_name(given: object) -> bool:
    return isinstance(given, str | bytes | os.PathLike)


def check_working_folder() -> None:
    """Raise UserError where the folder that a command is given in was removed.

    What torch loads ends the process there without an exception.
    """
    try:
        Path.cwd()
    except OSError as error:
        raise UserError(
            "the working folder is not there any more; change to a folder that exists"
        ) from error
