"""Prompts that a server keeps in a folder of its own, each version beside the one before it."""

from __future__ import annotations

import shutil
import tempfile
import threading
import weakref
from contextlib import suppress
from pathlib import Path

from foreword.artifacts.manifest import MANIFEST
from foreword.common import opening
from foreword.errors import ArtifactError, RunError
from foreword.serving.prompts import PromptStore, Registered


class Versions:
    """Prompts in `FOLDER/NAME/KEY`. A version is checked before it lies there, and the one before
    it is deleted when the new one is registered. Every method may be called from several threads.

    Args:
        store: where they are registered.
        folder: where they are kept; None: a temporary folder, made when it is first needed and
            deleted by `close`, or when the process ends.
    """

    def __init__(self, store: PromptStore, folder: Path | None = None) -> None:
        self.store = store
        self._folder = folder
        self._changing = threading.RLock()
        self._delete: weakref.finalize[..., object] | None = None
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    @property
    def folder(self) -> Path:
        """Where they are kept."""
        with self._changing:
            if self._folder is None:
                self._folder = Path(tempfile.mkdtemp(prefix="foreword-serve-"))
                self._delete = weakref.finalize(self, shutil.rmtree, self._folder, True)
            return self._folder

    def kept(self) -> dict[str, Path]:
        """Those of an earlier time, by name."""
        newest = {}
        for place in sorted(self.folder.iterdir()):
            named = place.is_dir() and not place.name.startswith(".")
            inner = [one for one in place.iterdir() if _is_artifact(one)] if named else []
            if inner:
                newest[place.name] = max(inner, key=lambda one: one.stat().st_mtime)
        return newest

    def new(self) -> Path:
        """An empty folder for the files of a version that is to be added; `drop` deletes it.

        Raises:
            RunError: it cannot be made.
        """
        try:
            new = Path(tempfile.mkdtemp(prefix=".new.", dir=self.folder)) / "artifact"
            new.mkdir()
        except OSError as error:
            raise RunError(f"{error.filename}: cannot be written: {error.strerror}") from error
        return new

    def drop(self, new: Path) -> None:
        """Delete such a folder, whether its version was added or not."""
        shutil.rmtree(new.parent, ignore_errors=True)

    def add(self, name: str, key: str, new: Path, shown: str) -> Registered:
        """Check a version, move it to where it is kept, and register it.

        Args:
            name: by which it is asked for.
            key: the same for files of the same content.
            new: its files, in a folder that `new` gave.
            shown: what messages call that folder.

        Raises:
            UserError: the name is none that a prompt may have.
            ArtifactError: it is no artifact of this backbone; the prompt of this name stays.
        """
        self.store.check_name(name)
        with self._changing:
            place = self.folder / name
            place.mkdir(exist_ok=True)
            final = place / key
            try:
                if not _is_artifact(final):
                    self.store.read(new)
                    shutil.rmtree(final, ignore_errors=True)
                    new.rename(final)
                return self.store.add(name, final)
            except ArtifactError as error:
                message = str(error).replace(str(new), shown).replace(str(final), shown)
                raise ArtifactError(message) from error
            finally:
                self._clear(name)

    def remove(self, name: str) -> None:
        """Delete what is kept of a prompt that is registered no more."""
        with self._changing:
            if self._folder is not None:
                self._clear(name)

    def _clear(self, name: str) -> None:
        """Delete what is kept under a name and is not registered."""
        place = self.folder / name
        entry = self.store.find(name)
        for one in place.iterdir() if place.is_dir() else ():
            if (entry is None or one != entry.folder) and not one.name.startswith("."):
                shutil.rmtree(one, ignore_errors=True)
        with suppress(OSError):
            place.rmdir()

    def close(self) -> None:
        """Delete the folder if it is a temporary one."""
        if self._delete is not None:
            self._delete()


def _is_artifact(folder: Path) -> bool:
    try:
        opening.check_regular(folder / MANIFEST, within=folder)
    except OSError:
        return False
    return True
