"""Folders that fsspec reaches: object stores, other machines. What lies there is not trusted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foreword.errors import UserError

CHUNK = 2**20
"""Bytes that are read at a time."""
_HASHES = ("ETag", "etag", "md5Hash", "content_md5", "checksum")
_TIMES = ("mtime", "ino", "LastModified", "last_modified", "updated", "modified", "created")
"""What listings call what tells one content of a file from another; stores differ."""
_PASSWORD = re.compile(r"//[^/\s@]*:[^/\s@]*@")


class Unreached(UserError):
    """A store does not give what it was asked for; it may at another time."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of a store, as its listing has it. Equal where its content is.

    Attributes:
        path: as the store calls it.
        size: bytes; None where the listing does not say.
        regular: whether it is a file, and no link or anything else.
        mark: differs when the content does.
    """

    path: str
    size: int | None
    regular: bool
    mark: str


class Remote:
    """A folder of a store.

    Args:
        url: as fsspec writes it.
        what: names it in messages.

    Raises:
        UserError: the URL is of no store that is known here, or its package is not installed.
    """

    def __init__(self, url: str, what: str) -> None:
        self.url, self.what = url, what
        self.shown = f"{what}: {without_password(url)}"
        self.fs, self.root = open_remote(url, what)

    def files(self) -> dict[str, RemoteFile]:
        """All files of the folder and of those in it, by their paths below it.

        Raises:
            Unreached: the folder cannot be listed, or is not there.
        """
        below = f"{self.root.rstrip('/')}/" if self.root.strip("/") else ""
        try:
            self.fs.invalidate_cache()
            kind = self.fs.info(self.root)["type"]
            listed = self.fs.find(self.root, detail=True)
        except FileNotFoundError as error:
            raise Unreached(f"{self.shown}: there is nothing of this name") from error
        except Exception as error:  # each store raises its own
            raise self._unreached(error) from error
        if kind != "directory":
            raise Unreached(f"{self.shown}: is no folder")
        found = {}
        for path, info in listed.items():
            inner = path.removeprefix(below) if below else path.lstrip("/")
            if path.startswith(below) and inner:
                found[inner] = self._file(path, info)
        return found

    def _file(self, path: str, info: dict[str, Any]) -> RemoteFile:
        size = info.get("size")
        hashes = [f"{kind} {info[kind]}" for kind in _HASHES if info.get(kind)]
        marks = hashes[:1] or [f"{kind} {info[kind]}" for kind in _TIMES if info.get(kind)]
        if not marks:
            try:
                marks = [str(self.fs.ukey(path))]
            except Exception as error:
                raise self._unreached(error) from error
        return RemoteFile(
            path,
            size if isinstance(size, int) and size >= 0 else None,
            info.get("type") == "file" and not info.get("islink"),
            " ".join(marks),
        )

    def check_gone(self, file: RemoteFile) -> None:
        """Make sure that a file is there no more: a listing may leave out what it cannot read.

        Raises:
            Unreached: it is still there, or the store does not say.
        """
        try:
            self.fs.info(file.path)
        except FileNotFoundError:
            return
        except Exception as error:
            raise self._unreached(error) from error
        raise Unreached(f"{self.shown}: {file.path!r:.200} is there, but the listing is without it")

    def fetch(self, file: RemoteFile, target: Path) -> None:
        """Copy a file, as large as its listing says and no larger.

        Args:
            file: one of `files`.
            target: where it goes; there must be nothing yet.

        Raises:
            Unreached: the store does not give it, or it has another size now.
            OSError: it cannot be written.
        """
        with target.open("xb") as sink:
            for chunk in self._chunks(file):
                sink.write(chunk)

    def _chunks(self, file: RemoteFile) -> Iterator[bytes]:
        left = file.size or 0
        try:
            with self.fs.open(file.path, "rb") as source:
                while left >= 0 and (chunk := source.read(CHUNK)):
                    left -= len(chunk)
                    yield chunk[: len(chunk) + min(0, left)]
        except Exception as error:
            raise self._unreached(error) from error
        if left:
            raise Unreached(f"{self.shown}: {file.path!r:.200} was changed while it was read")

    def _unreached(self, error: Exception) -> Unreached:
        reason = without_password(f"{error!s:.300}") or type(error).__name__
        return Unreached(f"{self.shown}: cannot be read: {reason}")


def open_remote(url: str, what: str) -> tuple[Any, str]:
    """fsspec's file system of a URL, and what the URL's folder is called there.

    Args:
        url: as fsspec writes it.
        what: names it in messages.

    Raises:
        UserError: there is no such kind of store, or its package is not installed.
    """
    import fsspec

    shown = f"{what}: {without_password(url)!r}"
    try:
        fs, root = fsspec.core.url_to_fs(url)
    except ImportError as error:
        package = getattr(error.__cause__ or error, "name", None)
        if package is None:
            raise UserError(f"{shown} cannot be used: {error}") from error
        package = package.partition(".")[0]
        raise UserError(
            f"{shown} needs {package}, which is not installed; pip install {package}"
        ) from error
    except Exception as error:
        raise UserError(f"{shown} cannot be used: {without_password(f'{error!s:.300}')}") from error
    return fs, str(root)


def without_password(text: str) -> str:
    """A text with the passwords of its URLs, `//NAME:PASSWORD@`, left out."""
    return _PASSWORD.sub("//…@", text)
