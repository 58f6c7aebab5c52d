"""Checkpoint folders: each appears whole or not at all, and a damaged one is passed over.

    checkpoints/
      step-000120/           the one before, kept in case
      step-000130/
        state.safetensors    tensors
        checkpoint.json      everything else, with the hash of the tensors and of itself
      latest                 the name of the good one

A new one is written to a temporary folder, synced, renamed, and only then pointed to; a crash
between any two of these steps leaves the old pointer on the old folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor

from foreword.common import files, opening
from foreword.common.json_text import parse_json
from foreword.errors import RunError

FORMAT = "1.0"
STATE, CONTENT, LATEST = "state.safetensors", "checkpoint.json", "latest"
CONTENT_BYTES = 2**28
"""Most bytes of `checkpoint.json`: plain data, and no tensors."""
_NAME = re.compile(r"step-(\d{6,})(?:-(\d+))?")


@dataclass(frozen=True)
class Checkpoint:
    """One that was read and is whole.

    Attributes:
        folder: where it lies.
        step: optimizer steps that were done.
        tensors: on the CPU.
        values: plain data.
    """

    folder: Path
    step: int
    tensors: dict[str, Tensor]
    values: dict[str, Any]


class Storage:
    """The folder of checkpoints; `current` is the one that stays until a better one is there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.current: Path | None = None

    def save(self, step: int, tensors: dict[str, Tensor], values: dict[str, Any]) -> Path:
        """Write a checkpoint, point to it, and keep the one before.

        Raises:
            RunError: it cannot be written; the one before is as it was.
        """
        target, temporary = self._unused(step), None
        try:
            if not self.folder.is_dir():
                self.folder.mkdir()
                files.sync_folder(self.folder.parent)
            temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=self.folder))
            temporary.chmod(0o755)
            state = safetensors.save(tensors, metadata={"format": "pt"})
            files.write_synced(temporary / STATE, state)
            content = {
                "format": FORMAT,
                "step": step,
                "state_sha256": hashlib.sha256(state).hexdigest(),
                **values,
            }
            content["sha256"] = _hash(content)
            text = json.dumps(content, indent=1)
            files.write_synced(temporary / CONTENT, text.encode())
            files.sync_folder(temporary)
            temporary.replace(target)
            files.sync_folder(self.folder)
            files.write_text(self.folder / LATEST, f"{target.name}\n")
        except (OSError, RunError) as error:
            for place in (temporary, None if self.pointed() == target else target):
                if place is not None:
                    shutil.rmtree(place, ignore_errors=True)
            reason = getattr(error, "strerror", None) or str(error)
            kept = (
                f"the last good one, {self.current.name}, is still there"
                if self.current
                else "there is none before it"
            )
            raise RunError(
                f"{self.folder}: the checkpoint of step {step} cannot be written: {reason}; {kept}"
            ) from error
        self.keep(target, self.current)
        self.current = target
        return target

    def candidates(self) -> list[Path]:
        """The folders that may hold a checkpoint, in the order in which they are to be tried."""
        if not self.folder.is_dir():
            return []
        by_name = {
            place.name: (int(match[1]), int(match[2] or 1))
            for place in self.folder.iterdir()
            if (match := _NAME.fullmatch(place.name))
        }
        names = sorted(by_name, key=lambda name: by_name[name], reverse=True)
        pointed = self._pointed()
        if pointed in names:
            names.remove(pointed)
            names.insert(0, pointed)
        return [self.folder / name for name in names]

    def pointed(self) -> Path | None:
        """What `latest` names, be it there or not."""
        name = self._pointed()
        return None if name is None else self.folder / name

    def keep(self, *wanted: Path | None) -> None:
        """Remove every other checkpoint and all that killed processes left half-written."""
        names = {place.name for place in wanted if place is not None}
        with suppress(OSError):
            for place in list(self.folder.iterdir()):
                if place.name not in names and place.name.startswith(("step-", ".step-")):
                    shutil.rmtree(place, ignore_errors=True)
            files.sweep(self.folder, LATEST)

    def remove(self) -> None:
        """Remove all of it; the pointer goes first."""
        with suppress(OSError):
            (self.folder / LATEST).unlink(missing_ok=True)
            self.keep()
            self.folder.rmdir()

    def _pointed(self) -> str | None:
        try:
            return opening.read_text(self.folder / LATEST, within=self.folder).strip()
        except (OSError, ValueError):
            return None

    def _unused(self, step: int) -> Path:
        name = target = f"step-{step:06d}"
        number = 1
        while os.path.lexists(self.folder / target):
            number += 1
            target = f"{name}-{number}"
        return self.folder / target


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint and make sure that it is what was written.

    Raises:
        ValueError: it is damaged, or of a later major format; the message says how.
    """
    try:
        content = parse_json(opening.read_text(folder / CONTENT, within=folder, most=CONTENT_BYTES))
        if not isinstance(content, dict):
            raise ValueError(f"{CONTENT} is no object")
        if content.pop("sha256", None) != _hash(content):
            raise ValueError(f"{CONTENT} is not what was written")
        if content["format"].split(".")[0] != FORMAT.split(".")[0]:
            raise ValueError(f"format {content['format']} is not known, this foreword reads 1.x")
        with opening.open_regular(folder / STATE, within=folder) as stored:
            state = stored.read()
        if hashlib.sha256(state).hexdigest() != content["state_sha256"]:
            raise ValueError(f"{STATE} is not what was written")
        return Checkpoint(folder, content["step"], safetensors.load(state), content)
    except OSError as error:
        raise ValueError(f"{Path(error.filename or folder).name}: {error.strerror}") from error
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"cannot be read: {error}") from error


def _hash(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
