"""Progress of long work, on stderr: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from typing import Protocol

from foreword.common.characters import printable


class Progress(Protocol):
    """What long work tells about itself."""

    def begin(self, title: str, total: int, done: int = 0) -> None:
        """A stage of `total` units starts, `done` of them before now; the one before it is over."""

    def advance(self, count: int = 1, note: str = "") -> None:
        """`count` units are done; `note` says how it goes (a loss, a score)."""

    def say(self, text: str) -> None:
        """A line to keep."""

    def end(self) -> None:
        """All stages are over."""


class Silent:
    """No output at all."""

    def begin(self, title: str, total: int, done: int = 0) -> None:
        """Nothing."""

    def advance(self, count: int = 1, note: str = "") -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Nothing."""

    def end(self) -> None:
        """Nothing."""


class PlainLog:
    """A line at the start and end of a stage and every ten seconds between, with time left."""

    def __init__(self, every: float = 10.0) -> None:
        self.every = every
        self.title, self.total, self.done, self.note = "", 0, 0, ""
        self.before, self.started = 0, 0.0
        self.last = 0.0

    def begin(self, title: str, total: int, done: int = 0) -> None:
        """Start a stage."""
        self.title, self.total, self.done, self.note = title, total, done, ""
        self.before = done
        self.started = self.last = time.monotonic()

    def advance(self, count: int = 1, note: str = "") -> None:
        """Print a line when one is due."""
        self.done += count
        self.note = note or self.note
        now = time.monotonic()
        if self.done < self.total and now - self.last < self.every:
            return
        self.last = now
        spent = now - self.started
        left = spent / max(1, self.done - self.before) * (self.total - self.done)
        self.say(
            f"{self.title} {self.done}/{self.total} {self.note} "
            f"[{_clock(spent)} spent, {_clock(left)} left]".replace("  ", " ")
        )

    def say(self, text: str) -> None:
        """Print it."""
        with suppress(OSError, ValueError):  # nobody reads it, which is no reason to stop the work
            print(printable(text), file=sys.stderr, flush=True)

    def end(self) -> None:
        """Nothing is left open."""


class Bar:
    """A bar with the note and the time left."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TaskID,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self.task: TaskID | None = None
        self.progress.start()

    def begin(self, title: str, total: int, done: int = 0) -> None:
        """Start a stage under the ones before."""
        self.task = self.progress.add_task(printable(title), total=total, completed=done, note="")

    def advance(self, count: int = 1, note: str = "") -> None:
        """Move the bar."""
        if self.task is not None:
            self.progress.advance(self.task, count)
            if note:
                self.progress.update(self.task, note=printable(note))

    def say(self, text: str) -> None:
        """Print above the bars."""
        self.progress.console.print(printable(text), markup=False, emoji=False, highlight=False)

    def end(self) -> None:
        """Leave the bars as they are."""
        self.progress.stop()


def progress_for_terminal() -> Progress:
    """A bar where stderr is a terminal, plain lines elsewhere."""
    return Bar() if sys.stderr.isatty() else PlainLog()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
