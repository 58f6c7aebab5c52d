"""Prompts of an object store, or of any other place that fsspec reaches.

Nothing is read from where it lies. What is there is brought to a folder of the server's own, and
checked there as uploads are, before it is served: files of an artifact alone, of the size that the
store says and of no more than a prompt may have, under names that a prompt may have.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from functools import partial
from pathlib import Path

from foreword.artifacts.manifest import HEAD, MANIFEST, TENSORS
from foreword.common.remote import Remote, RemoteFile, without_password
from foreword.errors import ArtifactError
from foreword.serving.following import Adding, Followed
from foreword.serving.prompts import PromptStore, Registered
from foreword.serving.versions import Versions

TAKEN = (MANIFEST, TENSORS, HEAD)
"""The files that are brought of an artifact."""
TOGETHER = 8
"""How many prompts are brought at the same time."""
Files = tuple[RemoteFile, ...]


class RemotePrompts(Followed[Files]):
    """The artifacts and runs below a URL.

    Args:
        url: as fsspec writes it.
        store: where they are registered.
        versions: where they are kept on this machine.

    Raises:
        UserError: the URL is of no store that is known here, or its package is not installed.
    """

    def __init__(self, url: str, store: PromptStore, versions: Versions) -> None:
        super().__init__(without_password(url), store)
        self.remote, self.versions = Remote(url, "prompts"), versions

    def _there(self) -> dict[str, Files]:
        by_name: dict[str, dict[str, RemoteFile]] = {}
        for path, file in self.remote.files().items():
            name, _, inner = path.partition("/")
            by_name.setdefault(name, {})[inner] = file
        return {name: _artifact(inner) for name, inner in sorted(by_name.items())}

    def _check_gone(self, state: Files) -> None:
        self.remote.check_gone(state[0])

    def _removed(self, name: str) -> None:
        self.versions.remove(name)

    def _adding(self, changed: Mapping[str, Files]) -> Iterator[tuple[str, Adding]]:
        coming = _begun(
            {name: partial(self._bring, name, files) for name, files in changed.items()}
        )
        for name, brought in coming.items():
            yield name, partial(self._add_brought, name, changed[name], brought)
            if brought.exception() is None:
                self.versions.drop(brought.result())

    def _bring(self, name: str, files: Files) -> Path:
        self.store.check_name(name)
        return _brought(self.remote, files, self.versions, f"{self.where}/{name}")

    def _add_brought(self, name: str, files: Files, brought: Future[Path]) -> Registered:
        where = f"{self.where}/{name}"
        return self.versions.add(name, _key(files), brought.result(), where)


def add_remote(name: str, url: str, versions: Versions) -> Registered:
    """Bring one artifact, or that of a run, and register it.

    Args:
        name: by which it is asked for.
        url: the artifact's, as fsspec writes it.
        versions: where it is kept on this machine.

    Raises:
        UserError: the URL cannot be read, or the name is none that a prompt may have.
        ArtifactError: what is there is no artifact of this backbone, or too large.
    """
    versions.store.check_name(name)
    remote = Remote(url, f"prompt.{name}")
    files = _artifact(remote.files())
    if not files:
        raise ArtifactError(f"{remote.shown}: is no artifact, it has no {MANIFEST}")
    new = _brought(remote, files, versions, remote.shown)
    try:
        return versions.add(name, _key(files), new, remote.shown)
    finally:
        versions.drop(new)


def _artifact(inner: Mapping[str, RemoteFile]) -> Files:
    """The files of an artifact, or of a run's, among those of a folder; none where it has none."""
    for folder in ("", "artifact/"):
        if f"{folder}{MANIFEST}" in inner:
            return tuple(inner[f"{folder}{name}"] for name in TAKEN if f"{folder}{name}" in inner)
    return ()


def _brought(remote: Remote, files: Files, versions: Versions, where: str) -> Path:
    """A new folder with the files of an artifact.

    Raises:
        ArtifactError: one is no file, or they are too large.
        Unreached: the store does not give one.
    """
    size, most = 0, versions.store.largest
    for file in files:
        name = file.path.rpartition("/")[2]
        if not file.regular:
            raise ArtifactError(f"{where}: '{name}' is no regular file")
        if file.size is None:
            raise ArtifactError(f"{where}: the store does not say how many bytes '{name}' has")
        size += file.size
    if size > most:
        raise ArtifactError(
            f"{where}: its files have {size:,} bytes, more than the {most:,} that a prompt may have"
        )
    new = versions.new()
    try:
        for file in files:
            remote.fetch(file, new / file.path.rpartition("/")[2])
    except BaseException:
        versions.drop(new)
        raise
    return new


def _key(files: Files) -> str:
    """The same for the same content."""
    return hashlib.sha256(repr(files).encode()).hexdigest()[:16]


def _begun(calls: Mapping[str, Callable[[], Path]]) -> dict[str, Future[Path]]:
    """The outcomes of calls that some threads make, which no ending process waits for."""
    coming: dict[str, Future[Path]] = {name: Future() for name in calls}
    waiting = deque(calls)

    def run() -> None:
        while waiting:
            try:
                name = waiting.popleft()
            except IndexError:
                return
            try:
                coming[name].set_result(calls[name]())
            except BaseException as error:
                coming[name].set_exception(error)

    for _ in range(min(TOGETHER, len(calls))):
        threading.Thread(target=run, name="foreword prompts", daemon=True).start()
    return coming
