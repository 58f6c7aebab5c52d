"""Prompts that come over the network: checked before they are used, kept in their own folder."""

from __future__ import annotations

import base64
import binascii
import hashlib
import shutil
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from foreword.artifacts.manifest import CARD, HEAD, MANIFEST, TENSORS
from foreword.common import files, opening
from foreword.errors import ArtifactError, DataError
from foreword.serving.prompts import PromptStore, Registered

TAKEN = (MANIFEST, TENSORS, HEAD, CARD)
"""The files that an upload may have."""


def below_roots(roots: Sequence[Path], folder: str) -> Path:
    """A folder that somebody names over the network.

    Args:
        roots: where it may lie.
        folder: its path, absolute or below a root.

    Returns:
        What it is after all links.

    Raises:
        DataError: it lies below none of the roots, or is not there.
    """
    if "\0" in folder:
        raise DataError("folder: has a NUL character in its name")
    for root in roots:
        whole = root.resolve()
        with suppress(OSError, RuntimeError):
            place = (whole / folder).resolve(strict=True)
            if place.is_relative_to(whole) and place.is_dir():
                return place
    raise DataError(f"folder: there is no {folder!r:.80} below the server's roots")


class Uploads:
    """Uploaded prompts, each in `FOLDER/NAME/HASH`.

    Args:
        folder: where they are kept.
        store: where they are registered.
    """

    def __init__(self, folder: Path, store: PromptStore) -> None:
        self.folder, self.store = folder, store
        self._changing = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)

    def kept(self) -> dict[str, Path]:
        """Those of an earlier time, by name."""
        newest = {}
        for place in sorted(self.folder.iterdir()):
            inner = [one for one in place.iterdir() if _is_artifact(one)] if place.is_dir() else []
            if inner:
                newest[place.name] = max(inner, key=lambda one: one.stat().st_mtime)
        return newest

    def add(self, name: str, encoded: Mapping[str, str]) -> Registered:
        """Take an artifact's files, check it as any other, and register it.

        Args:
            name: by which it is asked for.
            encoded: the files by name, in base64.

        Raises:
            UserError: the name is none that a prompt may have.
            DataError: a file is none that an artifact has, too large, or not in base64.
            ArtifactError: they are no artifact of this backbone.
        """
        self.store.check_name(name)
        content = self._decoded(encoded)
        whole = hashlib.sha256()
        for file in sorted(content):
            whole.update(f"{file}\0{len(content[file])}\0".encode() + content[file])
        with self._changing:
            place = self.folder / name
            place.mkdir(exist_ok=True)
            final = place / whole.hexdigest()[:16]
            if not _is_artifact(final):
                try:
                    self._write(content, place, final)
                except BaseException:
                    self._clear(name)
                    raise
            registered = self.store.add(name, final)
            self._clear(name)
        return registered

    def _write(self, content: Mapping[str, bytes], place: Path, final: Path) -> None:
        """Write files beside where they are to lie, check them, and move them there."""
        with tempfile.TemporaryDirectory(prefix=".new.", dir=place) as temporary:
            new = Path(temporary) / "artifact"
            new.mkdir()
            for file, data in content.items():
                files.write_bytes(new / file, data)
            try:
                self.store.check(new)
            except ArtifactError as error:
                raise ArtifactError(str(error).replace(str(new), "files")) from error
            shutil.rmtree(final, ignore_errors=True)
            new.rename(final)

    def remove(self, name: str) -> None:
        """Delete what is kept of a prompt that is registered no more."""
        with self._changing:
            self._clear(name)

    def _clear(self, name: str) -> None:
        """Delete what is kept under a name and is not registered."""
        place = self.folder / name
        used = self.store.registered(name).folder if name in self.store else None
        for one in place.iterdir() if place.is_dir() else ():
            if one != used and not one.name.startswith("."):
                shutil.rmtree(one, ignore_errors=True)
        with suppress(OSError):
            place.rmdir()

    def _decoded(self, encoded: Mapping[str, str]) -> dict[str, bytes]:
        contents, left = {}, self.store.largest
        for file, text in encoded.items():
            if file not in TAKEN:
                raise DataError(f"files: {file!r:.80} is none of {', '.join(TAKEN)}")
            if len(text) * 3 // 4 > left:
                raise DataError(f"files: have more than the {self.store.largest:,} bytes they may")
            try:
                contents[file] = base64.b64decode(text, validate=True)
            except (binascii.Error, ValueError) as error:
                raise DataError(f"files: '{file}' is not in base64: {error}") from error
            left -= len(contents[file])
        if MANIFEST not in contents:
            raise DataError(f"files: has no '{MANIFEST}'")
        return contents


def _is_artifact(folder: Path) -> bool:
    try:
        opening.check_regular(folder / MANIFEST, within=folder)
    except OSError:
        return False
    return True
