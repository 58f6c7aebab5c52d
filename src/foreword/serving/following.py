"""A place of prompts, such as a folder: read once, and looked at again while others answer."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

from foreword.artifacts.manifest import MANIFEST
from foreword.common.remote import Unreached
from foreword.errors import UserError
from foreword.serving.prompts import FILES, PromptStore, Registered

S = TypeVar("S")
"""What tells one content of an artifact from another; equal where nothing was changed, and false
where there is no artifact."""
Adding = Callable[[], Registered]
State = tuple[tuple[str, int, int, int], ...]
"""Of each file of an artifact: its name, its bytes, when it was written, its number on the disk."""
_log = logging.getLogger("foreword.serving")


class Followed(ABC, Generic[S]):
    """The artifacts and runs of a place, each called as its own.

    A name that something else has registered, such as an upload, is left to it.

    Args:
        where: the place, as messages call it.
        store: where they are registered.

    Attributes:
        looks: how often it was looked at.
        failures: how many of these could not read the place, or a prompt in it.
    """

    def __init__(self, where: str, store: PromptStore) -> None:
        self.where, self.store = where, store
        self.looks, self.failures = 0, 0
        self._states: dict[str, S] = {}
        self._own: dict[str, Registered] = {}
        self._reasons: dict[str, str] = {}
        self._ending = threading.Event()

    @abstractmethod
    def _there(self) -> dict[str, S]:
        """What is there, by name.

        Raises:
            UserError: that cannot be told.
        """

    @abstractmethod
    def _adding(self, changed: Mapping[str, S]) -> Iterator[tuple[str, Adding]]:
        """For each of some names what registers its prompt.

        It raises Unreached where that could be done at another time, with the same files.
        """

    def _check_gone(self, state: S) -> None:
        """Raise UserError where a prompt that was not found may be there all the same."""

    def _removed(self, name: str) -> None:
        """After a prompt of this place was removed."""

    def look(self, forgotten: Callable[[str], None] = lambda _: None) -> None:
        """Register what is new or was changed, and remove what is gone. What cannot be served is
        said, and left out or left as it was; it is tried again when its files have changed.

        Args:
            forgotten: called with the name of each prompt that is removed.

        Raises:
            UserError: the place cannot be read; nothing is changed then.
        """
        self.looks += 1
        try:
            there = {name: state for name, state in self._there().items() if state}
            gone = self._states.keys() - there
            for name in gone:
                self._check_gone(self._states[name])
        except BaseException:
            self.failures += 1
            raise
        for name in gone:
            del self._states[name]
            own = self._own.pop(name, None)
            if own is not None and self.store.find(name) is own:
                self.store.remove(name)
                self._removed(name)
                forgotten(name)
                _log.info("removed the prompt %.130r, which is gone from %s", name, self.where)
        for name in self._reasons.keys() - there:
            del self._reasons[name]
        changed = {
            name: state
            for name, state in there.items()
            if self._states.get(name) != state and self._is_own(name)
        }
        whole = [self._add(name, changed[name], add) for name, add in self._adding(changed)]
        self.failures += not all(whole)

    def _is_own(self, name: str) -> bool:
        before = self.store.find(name)
        return before is None or before is self._own.get(name)

    def _add(self, name: str, state: S, add: Adding) -> bool:
        """Whether all was done that could be done with these files."""
        if self._ending.is_set() or not self._is_own(name):
            return True
        stays = "is left out" if self.store.find(name) is None else "stays as it was"
        try:
            self._own[name] = add()
        except Exception as error:
            if self._reasons.get(name) != str(error):
                _log.warning("the prompt %.130r %s: %s", name, stays, error)
            self._reasons[name] = str(error)
            if isinstance(error, Unreached) or not isinstance(error, UserError):
                return False
        else:
            self._reasons.pop(name, None)
            _log.info("read the prompt %r", name)
        self._states[name] = state
        return True

    def follow(
        self,
        seconds: float,
        forgotten: Callable[[str], None],
        looked: Callable[[], None] = lambda: None,
    ) -> None:
        """Look again every so many seconds, in a thread of its own, until `close`. What keeps it
        from being read is said once, until it changes or is over.

        Args:
            seconds: between two looks.
            forgotten: called with the name of each prompt that is removed.
            looked: called after each look.
        """

        def run() -> None:
            reason = ""
            while not self._ending.wait(seconds):
                try:
                    self.look(forgotten)
                    looked()
                except Exception as error:
                    if str(error) != reason:
                        _log.warning("prompts stay as they were: %s", error)
                    reason = str(error)
                else:
                    if reason:
                        _log.info("prompts are read again from %s", self.where)
                    reason = ""

        threading.Thread(target=run, name="foreword prompts", daemon=True).start()

    def close(self) -> None:
        """Look no more."""
        self._ending.set()


class PromptFolder(Followed[State]):
    """The artifacts and runs of a folder.

    Args:
        folder: on a disk, or one that several machines share.
        store: where they are registered.
    """

    def __init__(self, folder: Path, store: PromptStore) -> None:
        super().__init__(str(folder), store)
        self.folder = folder

    def _there(self) -> dict[str, State]:
        try:
            return {place.name: _state(place) for place in sorted(self.folder.iterdir())}
        except OSError as error:
            raise UserError(f"prompts: {self.folder}: {error.strerror}") from error

    def _adding(self, changed: Mapping[str, State]) -> Iterator[tuple[str, Adding]]:
        for name in changed:
            yield name, partial(self.store.add, name, self.folder / name)


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
