"""Writing files so that nothing is ever left half-written, a power cut included.

What is written gets a temporary name, is synced, renamed, and the folder is synced.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from foreword.common import opening
from foreword.errors import RunError, UserError, argument


class Occupied(UserError):
    """Somebody else has a folder, or has put something into it."""


def write_text(file: Path, text: str) -> None:
    """Write a text file in one move: readers see the old file or the new one."""
    write_bytes(file, text.encode())


def write_bytes(file: Path, data: bytes) -> None:
    """Write a file in one move: readers see the old file or the new one.

    Raises:
        RunError: it cannot be written; the old file is as it was.
    """
    _replace(file, data, file.with_name(f".{file.name}.{os.getpid()}.tmp"))


def replace_text(file: Path, text: str) -> None:
    """`write_text` for a file of the user's: any name that a file may have, and its old mode."""
    replace_bytes(file, text.encode())


def replace_bytes(file: Path, data: bytes) -> None:
    """`write_bytes` for a file of the user's: any name that a file may have, and its old mode."""
    _replace(file, data, file.with_name(f".foreword.{os.getpid()}.tmp"), as_before=True)


def _replace(file: Path, data: bytes, temporary: Path, *, as_before: bool = False) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_synced(temporary, data)
        if as_before:
            with suppress(FileNotFoundError):
                temporary.chmod(stat.S_IMODE(file.stat().st_mode))
        temporary.replace(file)
        sync_folder(file.parent)
    except OSError as error:
        raise RunError(f"{file}: cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_synced(file: Path, data: bytes) -> None:
    """Write a file under its own name and wait until the disk has it; OSError if it cannot be."""
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        write_all(handle, data)
        os.fsync(handle)
    finally:
        os.close(handle)


def write_all(handle: int, data: bytes) -> None:
    """Write to a file descriptor, in as many parts as the system makes of it."""
    left = memoryview(data)
    while left:
        written = os.write(handle, left)
        if not written:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        left = left[written:]


def sync_folder(folder: Path) -> None:
    """Wait until the disk has a folder's names."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # not every file system can
            raise
    finally:
        os.close(handle)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder` that becomes it when the block ends well.

    Raises:
        UserError: `folder` is there already and is not empty.
        RunError: it cannot be written.
    """
    refuse_occupied(folder)
    folder = Path(os.path.realpath(folder))  # a link stays, and what it leads to is made
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise RunError(f"{folder}: cannot be written: {error.strerror or error}") from error
    try:
        yield temporary
        temporary.chmod(0o755)
        _sync_all(temporary)
        if folder.exists():
            folder.rmdir()
        temporary.replace(folder)
        sync_folder(folder.parent)
    except OSError as error:
        raise RunError(f"{folder}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sync_all(folder: Path) -> None:
    for place in folder.iterdir():
        if place.is_dir():
            _sync_all(place)
        else:
            handle = os.open(place, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
    sync_folder(folder)


def sweep(folder: Path, *names: str) -> None:
    """Remove what a killed process left of the files and folders `names` in `folder`."""
    for name in names:
        for place in folder.glob(f".{name}.*"):
            if place.is_dir() and not place.is_symlink():
                shutil.rmtree(place, ignore_errors=True)
            else:
                with suppress(OSError):
                    place.unlink()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Nobody else is in this block with the same folder; the system lets go when a process dies.

    Raises:
        Occupied: another process is in it now, or has removed the folder meanwhile.
        UserError: it cannot be opened.
    """
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise UserError(f"{folder}: cannot be opened: {error.strerror}") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Occupied(
                f"{folder}: another process is writing into it now; wait for it, or name another "
                "folder"
            ) from error
        except OSError:
            pass  # a file system without locks
        if not _is_still(folder, handle):
            raise Occupied(f"{folder}: another process has removed it meanwhile; start again")
        yield
    finally:
        os.close(handle)


def _is_still(folder: Path, handle: int) -> bool:
    try:
        return os.path.samestat(folder.stat(), os.fstat(handle))
    except OSError:
        return False


def refuse_occupied(folder: Path) -> None:
    """Raise Occupied if there is something at `folder` that a new one would replace."""
    if os.path.islink(os.path.realpath(folder)):  # noqa: PTH114
        raise UserError(f"{folder}: is a link that leads to itself; name another folder")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Occupied(f"{folder}: is there already and is not empty; name another folder")


def refuse_existing(file: Path, *, overwrite: bool) -> None:
    """Raise UserError if there is a file with something in it that a new one would replace.

    Devices, FIFOs and empty files lose nothing.

    Args:
        file: where something is to be written; links are followed.
        overwrite: whether it may be replaced.
    """
    try:
        status = file.stat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(f"{file}: cannot be written: {error.strerror}") from error
    if stat.S_ISREG(status.st_mode) and status.st_size and not overwrite:
        raise UserError(
            f"{file}: is there already; replace it with {argument('--overwrite', 'overwrite=True')}"
            ", or name another file"
        )


def sha256(file: Path) -> str:
    """Hash of a regular file's bytes, in hex; OSError if it is none."""
    with opening.open_regular(file) as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
