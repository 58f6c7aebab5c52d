"""Prompts by name, of which those that are asked for lie in memory.

Thousands may be registered; an artifact's folder stays where it is, and its tensors are read again
when they are needed. Prompts are added, replaced and removed at any time; a request that is under
way ends with the prompt it began with.
"""

from __future__ import annotations

import re
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

import torch

from foreword.artifacts.manifest import (
    DELTA,
    HEAD,
    MANIFEST,
    TENSORS,
    Manifest,
    artifact_folder,
    read_manifest,
)
from foreword.backbone import Backbone
from foreword.common import opening
from foreword.errors import ArtifactError, BusyError, UserError, did_you_mean
from foreword.serving.memory import bytes_of_prompt
from foreword.session import LoadedPrompt, check_mixes, load
from foreword.tasks import task_of
from foreword.tuned import TunedModel

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
"""What a prompt may be called: it stands in addresses and in names of files."""
FILES = (MANIFEST, TENSORS, HEAD, DELTA)
"""Those that are read of an artifact."""


@dataclass(eq=False)
class Registered:
    """A prompt that may be asked for.

    Attributes:
        name: by which it is asked for.
        folder: its artifact.
        manifest: what the artifact says of itself.
        bytes: what it takes in memory.
        loading: held while it is read from its folder.
        loaded: the prompt; None while it is not kept in memory.
        living: its model, for as long as it is kept or requests that are under way have it.
    """

    name: str
    folder: Path
    manifest: Manifest
    bytes: int
    loading: threading.Lock = field(default_factory=threading.Lock)
    loaded: LoadedPrompt | None = None
    living: Callable[[], TunedModel | None] = lambda: None

    def here(self) -> LoadedPrompt | None:
        """The prompt, if it lies in memory for whatever reason."""
        loaded, model = self.loaded, self.living()
        if loaded is None and model is not None:
            loaded = LoadedPrompt(self.manifest, task_of(self.manifest.task).on(model))
        return loaded


class PromptStore:
    """Prompts of one backbone. Every method may be called from several threads.

    Args:
        backbone: the one that all were trained on.
        memory: bytes that those in memory may take, those that requests under way have among
            them; the least recently asked for give way.
        largest: bytes that an artifact's files may have.
        other_backbone: take prompts that were trained on other weights all the same.
        reserved: names that no prompt may have.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        memory: int = 2**30,
        largest: int = 2**28,
        other_backbone: bool = False,
        reserved: tuple[str, ...] = (),
    ) -> None:
        self.backbone, self.memory, self.largest = backbone, memory, largest
        self.other_backbone, self.reserved = other_backbone, reserved
        self._prompts: dict[str, Registered] = {}
        self._recent: OrderedDict[Registered, None] = OrderedDict()
        self._taken = 0
        self._freed: deque[int] = deque()  # by whatever thread dropped a prompt last
        self._changing = threading.Lock()

    def __len__(self) -> int:
        return len(self._prompts)

    def __contains__(self, name: object) -> bool:
        return name in self._prompts

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._prompts))

    @property
    def in_memory(self) -> tuple[int, int]:
        """How many prompts are kept in memory, and the bytes of these and of those that requests
        under way have."""
        with self._changing:
            return len(self._recent), self._settled()

    def find(self, name: str) -> Registered | None:
        """A prompt by its name, if there is one; it need not be in memory."""
        return self._prompts.get(name)

    def registered(self, name: str) -> Registered:
        """A prompt by its name; it need not be in memory.

        Raises:
            UserError: there is none.
        """
        entry = self._prompts.get(name)
        if entry is None:
            close = get_close_matches(name, tuple(self._prompts), n=1)
            raise UserError(
                f"model: there is no '{name[:128]}' among {len(self):,}{did_you_mean(name, close)}"
            )
        return entry

    def add(self, name: str, folder: Path | str) -> Registered:
        """Read an artifact, check it, and register it; one of the same name is replaced.

        Args:
            name: by which it is asked for.
            folder: the artifact, or a run folder that has one.

        Raises:
            UserError: the name is none that a prompt may have.
            ArtifactError: the artifact is damaged or too large, does not fit the backbone, or has
                weights of the backbone that moved.
        """
        self.check_name(name)
        folder = artifact_folder(folder)
        manifest, loaded, size = self._read(folder)
        new = Registered(name, folder, manifest, size)
        if size > self.memory:
            raise ArtifactError(
                f"{folder}: takes {size:,} bytes in memory, but all prompts together may take "
                f"{self.memory:,}"
            )
        with self._changing:
            old = self._prompts.get(name)
            if old is not None:
                self._forget(old)
            self._prompts[name] = new
            if self._has_room(size):
                self._taken += size
                self._count(new, loaded)
                self._keep(new, loaded)
        return new

    def read(self, folder: Path | str) -> LoadedPrompt:
        """An artifact with all the checks, and errors, of `add`; nothing is registered."""
        return self._read(artifact_folder(folder))[1]

    def check_name(self, name: str) -> None:
        """Raise UserError where no prompt may be called so."""
        if not NAME.fullmatch(name):
            raise UserError(
                f"name: {name!r:.80} is no name of a prompt; use letters, digits, '.', '_' and "
                "'-', beginning with a letter or a digit, at most 128"
            )
        if name in self.reserved:
            raise UserError(f"name: '{name}' is the backbone's; choose another one")

    def remove(self, name: str) -> Registered:
        """Forget a prompt.

        Raises:
            UserError: there is none of this name.
        """
        with self._changing:
            old = self.registered(name)
            del self._prompts[name]
            self._forget(old)
        return old

    def get(self, name: str) -> LoadedPrompt:
        """A prompt, read from its folder where it is not in memory.

        Raises:
            UserError: there is none of this name.
            ArtifactError: its folder holds something else now.
            BusyError: those of requests that are under way leave no room for it.
        """
        while True:
            entry = self.registered(name)
            with entry.loading:
                loaded = entry.here()
                if loaded is None:
                    try:
                        loaded = self._read_again(entry)
                    except ArtifactError:
                        if self._prompts.get(name) is entry:
                            raise
                        continue
                with self._changing:
                    if self._prompts.get(name) is entry:
                        self._keep(entry, loaded)
            return loaded

    def _read_again(self, entry: Registered) -> LoadedPrompt:
        with self._changing:
            if not self._has_room(entry.bytes):
                raise BusyError(
                    f"model: there is no room for '{entry.name}' beside the prompts of requests "
                    f"that are under way: all may take {self.memory:,} bytes; ask again later"
                )
            self._taken += entry.bytes
        try:
            manifest, loaded, _ = self._read(entry.folder)
            if _hashes(manifest) != _hashes(entry.manifest):
                raise ArtifactError(
                    f"{entry.folder}: was changed since '{entry.name}' was added; add it again"
                )
        except BaseException:
            self._freed.append(entry.bytes)
            raise
        self._count(entry, loaded)
        return loaded

    def _read(self, folder: Path) -> tuple[Manifest, LoadedPrompt, int]:
        size = sum(_size(folder / name) for name in FILES)
        if size > self.largest:
            raise ArtifactError(
                f"{folder}: its files have {size:,} bytes, more than the {self.largest:,} that a "
                "prompt may have"
            )
        manifest = read_manifest(folder)
        if manifest.delta_sha256 is not None:
            moves = manifest.method.moves.kind
            raise ArtifactError(
                f"{folder}: has weights of the backbone that were trained too (delta: {moves}), so "
                "it cannot answer in one batch with other prompts"
            )
        loaded = load(folder, backbone=self.backbone, other_backbone=self.other_backbone)
        check_mixes(loaded, folder)
        with torch.no_grad():
            return manifest, loaded, bytes_of_prompt(loaded.model)

    def _count(self, prompt: Registered, loaded: LoadedPrompt) -> None:
        """Have its bytes, which are counted as taken, come back when nobody has it any more."""
        weakref.finalize(loaded.model, self._freed.append, prompt.bytes).atexit = False
        prompt.living = weakref.ref(loaded.model)

    def _settled(self) -> int:
        """Bytes that are taken now."""
        while self._freed:
            self._taken -= self._freed.popleft()
        return self._taken

    def _has_room(self, size: int) -> bool:
        """Whether so many bytes are free, after those that nobody needs have given way."""
        while self._settled() + size > self.memory and self._recent:
            self._forget(next(iter(self._recent)))
        return self._settled() + size <= self.memory

    def _keep(self, prompt: Registered, loaded: LoadedPrompt) -> None:
        """Keep a prompt that was asked for now."""
        prompt.loaded = loaded
        self._recent[prompt] = None
        self._recent.move_to_end(prompt)

    def _forget(self, prompt: Registered) -> None:
        self._recent.pop(prompt, None)
        prompt.loaded = None


def _hashes(manifest: Manifest) -> tuple[str | None, ...]:
    return manifest.prompt_sha256, manifest.head_sha256, manifest.delta_sha256


def _size(file: Path) -> int:
    """Bytes of a regular file; 0 where there is none.

    Raises:
        ArtifactError: it is no regular file of its folder.
    """
    try:
        with opening.open_regular(file, within=file.parent) as handle:
            return handle.seek(0, 2)
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise ArtifactError(f"{file}: cannot be read: {error.strerror or error}") from error
