"""Ctrl-C and SIGTERM: a request to stop, which the training grants when its state is saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any


class Stopped(KeyboardInterrupt):
    """A run was asked to stop, and did.

    A KeyboardInterrupt, so that nothing that handles errors goes on with the next run.

    Attributes:
        signal: which signal asked.
        exit_status: what a program that stopped by it returns: 130 after Ctrl-C, 143 after SIGTERM.
        folder: the run folder to go on with, where there is one.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.signal = number
        self.exit_status = 128 + number
        self.folder: Path | None = None


class Stop:
    """Whether somebody asked to stop.

    Attributes:
        requested: the signal's number, or None.
        patient: whether the work looks at `requested` by itself; if not, the signal ends it at
            once.
    """

    def __init__(self) -> None:
        self.requested: int | None = None
        self.patient = False

    def check(self) -> None:
        """Raise `Stopped` if somebody asked."""
        if self.requested is not None:
            raise Stopped(self.requested)

    @contextmanager
    def patiently(self) -> Iterator[None]:
        """In this block the work looks at `requested` by itself, at moments that suit it."""
        self.patient = True
        try:
            yield
        finally:
            self.patient = False


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Turn the first Ctrl-C or SIGTERM into a request; a second one does what it always does.

    Outside the main thread nothing is installed; a signal that is ignored stays ignored.
    """
    stop = Stop()
    before: dict[signal.Signals, Any] = {}

    def handle(number: int, _: FrameType | None) -> None:
        restore()
        stop.requested = number
        if not stop.patient:
            stop.check()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            previous = signal.getsignal(number)
            if previous not in (signal.SIG_IGN, None):
                before[number] = previous
        for number in before:
            signal.signal(number, handle)
    try:
        yield stop
    finally:
        restore()
