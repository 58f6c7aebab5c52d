"""When a training is saved, and what it goes on from."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from foreword.common.run_files import LOG as LOG
from foreword.errors import RunError
from foreword.training.history import History
from foreword.training.log import Log, read_log
from foreword.training.storage import Checkpoint, Storage, read_checkpoint

SECONDS = 30.0
SHARE = 0.01
"""By time: a checkpoint every 30 seconds, or less often where writing would take over 1 %."""

FOLDER = "checkpoints"


@dataclass(frozen=True)
class Saved:
    """Where a training goes on: a checkpoint, what had happened by then, what was passed over."""

    checkpoint: Checkpoint
    history: History
    passed_over: tuple[str, ...] = ()


def newest(folder: Path) -> Saved | None:
    """The newest good checkpoint of a run folder; None if there is none at all. Changes nothing.

    Raises:
        RunError: there are checkpoints, and all of them are damaged.
    """
    storage = Storage(folder / FOLDER)
    pointed, candidates = storage.pointed(), storage.candidates()
    bad = []
    if pointed is not None and pointed not in candidates:
        bad.append(f"{pointed} is missing")
    for place in candidates:
        try:
            checkpoint = read_checkpoint(place)
            history = _history(read_log(folder / LOG, checkpoint.values["log"]))
            if len(history.steps) != checkpoint.step:
                raise ValueError(f"{LOG} has {len(history.steps)} steps by then")
        except OSError as error:
            bad.append(f"{place} is damaged: {LOG}: {error.strerror}")
        except (ValueError, KeyError) as error:
            bad.append(f"{place} is damaged: {error}")
        else:
            return Saved(checkpoint, history, tuple(bad))
    if bad:
        raise RunError(
            "\n".join(
                [
                    f"{folder}: no checkpoint can be gone on from; remove "
                    f"{folder / FOLDER} to start from the beginning",
                    *(f"  - {line}" for line in bad),
                ]
            )
        )
    return None


class Checkpoints:
    """The checkpoints of one run, as the training loop sees them.

    Args:
        folder: the run folder.
        log: the run's log; a checkpoint says how far it goes.
        every: steps between checkpoints; by time if not given.
        about: plain data on the run that every checkpoint repeats.
        saved: what to go on from.
        writes: False in processes that do not write.
    """

    def __init__(
        self,
        folder: Path,
        log: Log,
        *,
        every: int | None = None,
        about: dict[str, Any] | None = None,
        saved: Saved | None = None,
        writes: bool = True,
    ) -> None:
        self.storage = Storage(folder / FOLDER)
        self.log, self.every, self.about = log, every, about or {}
        self.saved, self.writes = saved, writes
        self.due_at = time.monotonic() + SECONDS
        if saved is not None:
            self.storage.current = saved.checkpoint.folder

    def due(self, step: int) -> bool:
        """Whether it is time for one."""
        if not self.writes:
            return False
        if self.every is not None:
            return step % self.every == 0
        return time.monotonic() >= self.due_at

    def save(self, step: int, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Write one.

        Raises:
            RunError: it cannot be written; the one before is as it was.
        """
        if not self.writes:
            return
        started = time.monotonic()
        content = {**values, "log": self.log.mark(), "run": self.about}
        self.storage.save(step, tensors, content)
        now = time.monotonic()
        self.due_at = now + max(SECONDS, (now - started) / SHARE)


def _history(entries: list[dict[str, Any]]) -> History:
    history = History()
    for entry in entries:
        if "evaluation" in entry:
            history.evaluations.append(entry["evaluation"])
        else:
            history.steps.append(entry)
    return history
