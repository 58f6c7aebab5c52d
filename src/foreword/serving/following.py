"""A folder of prompts: read once, and looked at again while others answer."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from foreword.artifacts.manifest import MANIFEST
from foreword.errors import ArtifactError, UserError
from foreword.serving.prompts import FILES, PromptStore, Registered

State = tuple[tuple[str, int, int, int], ...]
"""Of each file of an artifact: its name, its bytes, when it was written, its number on the disk."""
_log = logging.getLogger("foreword.serving")


class PromptFolder:
    """The artifacts and runs of a folder, each called as its own.

    A name that something else has registered, such as an upload, is left to it.

    Args:
        folder: on a disk, or one that several machines share.
        store: where they are registered.
    """

    def __init__(self, folder: Path, store: PromptStore) -> None:
        self.folder, self.store = folder, store
        self._states: dict[str, State] = {}
        self._own: dict[str, Registered] = {}
        self._ending = threading.Event()

    def look(self, forgotten: Callable[[str], None] = lambda _: None) -> None:
        """Register what is new or was changed, and remove what is gone. What cannot be served is
        said, and left out or left as it was; it is tried again when its files have changed.

        Args:
            forgotten: called with the name of each prompt that is removed.

        Raises:
            UserError: the folder cannot be read; nothing is changed then.
        """
        try:
            states = {place.name: _state(place) for place in sorted(self.folder.iterdir())}
        except OSError as error:
            raise UserError(f"prompts: {self.folder}: {error.strerror}") from error
        there = {name: state for name, state in states.items() if state}
        for name in self._states.keys() - there:
            del self._states[name]
            own = self._own.pop(name, None)
            if own is not None and self.store.find(name) is own:
                self.store.remove(name)
                forgotten(name)
                _log.info("removed the prompt '%s', which is gone from %s", name, self.folder)
        for name, state in there.items():
            if self._states.get(name) != state:
                self._add(name, state)

    def _add(self, name: str, state: State) -> None:
        before = self.store.find(name)
        if before is not None and before is not self._own.get(name):
            return
        self._states[name] = state
        try:
            self._own[name] = self.store.add(name, self.folder / name)
        except (ArtifactError, UserError) as error:
            stays = "is left out" if before is None else "stays as it was"
            _log.warning("the prompt '%s' %s: %s", name, stays, error)
        else:
            _log.info("read the prompt '%s'", name)

    def follow(self, seconds: float, forgotten: Callable[[str], None]) -> None:
        """Look again every so many seconds, in a thread of its own, until `close`."""

        def run() -> None:
            while not self._ending.wait(seconds):
                try:
                    self.look(forgotten)
                except Exception as error:
                    _log.warning("prompts stay as they were: %s", error)

        threading.Thread(target=run, name="foreword prompts", daemon=True).start()

    def close(self) -> None:
        """Look no more."""
        self._ending.set()


def _state(place: Path) -> State:
    """What an artifact's files are, or those of a run's artifact; nothing where there is none.

    Raises:
        OSError: that cannot be told.
    """
    for folder in (place, place / "artifact"):
        files = []
        for name in FILES:
            try:
                file = (folder / name).stat()
            except (FileNotFoundError, NotADirectoryError):
                continue
            files.append((name, file.st_size, file.st_mtime_ns, file.st_ino))
        if any(name == MANIFEST for name, *_ in files):
            return tuple(files)
    return ()
