"""The table of a comparison's runs while they go on."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from foreword.cli.output import complain

if TYPE_CHECKING:
    from rich.table import Table

    from foreword.comparing.cells import Place


class Pace:
    """How long runs have taken, and how long those that are left take.

    Args:
        total: runs there are to be.
        finished: how many of them are there before the first begins.
    """

    def __init__(self, total: int, finished: int) -> None:
        self.total, self.before, self.finished = total, finished, finished
        self.started = self.last = time.monotonic()

    def ended(self) -> None:
        """A run has ended."""
        self.finished += 1
        self.last = time.monotonic()

    @property
    def spent(self) -> float:
        """Seconds since the first began."""
        return time.monotonic() - self.started

    @property
    def left(self) -> float | None:
        """Seconds until the last has ended, by those that have; None before one has."""
        ended = self.finished - self.before
        if not ended:
            return None
        each = (self.last - self.started) / ended
        since = time.monotonic() - self.last
        return max(0.0, each * (self.total - self.finished) - since)

    def __str__(self) -> str:
        left = "" if self.left is None else f", {_minutes(self.left)} left"
        return f"{_minutes(self.spent)} spent{left}"


def _minutes(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


class LiveTable(Protocol):
    """What a comparison shows while it runs."""

    def began(self, place: Place) -> None:
        """A run begins."""

    def ended(self, place: Place, *, failed: bool) -> None:
        """A run has ended."""

    def say(self, line: str) -> None:
        """A line to keep."""

    def end(self) -> None:
        """All runs are over."""


def live_table(places: Sequence[Place], pace: Pace) -> LiveTable:
    """A table on a terminal, with the time left; lines alone elsewhere."""
    return _Drawn(places, pace) if sys.stderr.isatty() else _Said()


class _Said:
    """Lines alone."""

    def began(self, place: Place) -> None:
        """Nothing."""

    def ended(self, place: Place, *, failed: bool) -> None:
        """Nothing."""

    def say(self, line: str) -> None:
        """Print it."""
        complain(line)

    def end(self) -> None:
        """Nothing is left open."""


class _Drawn:
    """A row for each method: how many of its runs are done, and at which step the others are; below
    them the time spent and left."""

    def __init__(self, places: Sequence[Place], pace: Pace) -> None:
        from rich.console import Console
        from rich.live import Live

        self.pace = pace
        self.places, self.running, self.failed = places, set[str](), set[str]()
        self.live = Live(
            console=Console(stderr=True), get_renderable=self._table, refresh_per_second=1
        )
        self.live.start()

    def began(self, place: Place) -> None:
        """Show that it runs."""
        self.running.add(str(place.folder))

    def ended(self, place: Place, *, failed: bool) -> None:
        """Show how it ended."""
        self.running.discard(str(place.folder))
        if failed:
            self.failed.add(str(place.folder))

    def say(self, line: str) -> None:
        """Print above the table."""
        self.live.console.print(line, markup=False, highlight=False)

    def end(self) -> None:
        """Leave the table as it is."""
        self.live.stop()

    def _table(self) -> Table:
        from rich import box
        from rich.table import Table

        runs = f"{self.pace.finished}/{self.pace.total} runs"
        table = Table(box=box.SIMPLE_HEAD, caption=f"{runs}, {self.pace}", caption_justify="left")
        for title in ("method", "done", "runs now"):
            table.add_column(title)
        methods: dict[str, list[Place]] = {}
        for place in self.places:
            methods.setdefault(place.cell.method, []).append(place)
        for method, members in methods.items():
            done = sum(place.state == "finished" for place in members)
            failed = sum(str(place.folder) in self.failed for place in members)
            now = [self._step(place) for place in members if str(place.folder) in self.running]
            lost = f", {failed} failed" if failed else ""
            table.add_row(method, f"{done}/{len(members)}{lost}", ", ".join(now))
        return table

    def _step(self, place: Place) -> str:
        from foreword.errors import UserError
        from foreword.runs import read_record

        try:
            record = read_record(place.folder)
        except UserError:
            return f"seed {place.cell.recipe.seed}: begins"
        of = f" of {record.steps}" if record.steps else ""
        return f"seed {place.cell.recipe.seed}: step {record.step}{of}"
