"""Prompts that come over the network: checked before they are used, kept in their own folder."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from foreword.artifacts.joined import parts_of
from foreword.artifacts.manifest import CARD, HEAD, MANIFEST, TENSORS
from foreword.common import files
from foreword.errors import DataError
from foreword.serving.prompts import PromptStore, Registered
from foreword.serving.versions import Versions

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


def below_roots_together(roots: Sequence[Path], folder: str) -> tuple[Path, ...]:
    """The folders of `A+B`, or the one folder, that somebody names over the network.

    Raises:
        DataError: one lies below none of the roots, or is not there.
        ArtifactError: nothing stands on one side of a plus.
    """

    def known(one: str) -> bool:
        with suppress(DataError):
            below_roots(roots, one)
            return True
        return False

    return tuple(below_roots(roots, str(one)) for one in parts_of(folder, known))


class Uploads:
    """Uploaded prompts, each in `FOLDER/NAME/HASH`.

    Args:
        folder: where they are kept.
        store: where they are registered.
    """

    def __init__(self, folder: Path, store: PromptStore) -> None:
        self.store, self.versions = store, Versions(store, folder)

    def kept(self) -> dict[str, Path]:
        """Those of an earlier time, by name."""
        return self.versions.kept()

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
        new = self.versions.new()
        try:
            for file, data in content.items():
                files.write_bytes(new / file, data)
            return self.versions.add(name, whole.hexdigest()[:16], new, "files")
        finally:
            self.versions.drop(new)

    def remove(self, name: str) -> None:
        """Delete what is kept of a prompt that is registered no more."""
        self.versions.remove(name)

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
