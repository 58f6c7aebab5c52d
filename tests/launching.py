"""Commands in processes of their own, begun by `launcher.py`."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

HERE = Path(__file__).parent


@dataclass
class Started:
    """A command under way: its number, and files of what it prints and of its status at last."""

    number: int
    out: Path
    err: Path
    status: Path

    def ended(self) -> int | None:
        """The exit status, negative where a signal ended it; None: it is not over."""
        return int(self.status.read_text(encoding="utf-8")) if self.status.exists() else None

    def wait(self, seconds: float) -> bool:
        """Whether it was over by then."""
        end = time.monotonic() + seconds
        while self.ended() is None and time.monotonic() < end:
            time.sleep(0.002)
        return self.ended() is not None

    def send(self, how: signal.Signals) -> None:
        """Send a signal to a command that may be over."""
        if self.ended() is None:
            with suppress(ProcessLookupError):
                os.kill(self.number, how)

    def end(self, how: signal.Signals | None = None, *, within: float = 120) -> int:
        """Send a signal, if one is given, wait, and give the status."""
        if how is not None:
            self.send(how)
        assert self.wait(within), f"it did not end: {self.printed()}"
        status = self.ended()
        assert status is not None
        return status

    def printed(self) -> str:
        """The end of what it said on standard error."""
        return self.err.read_text(encoding="utf-8")[-3000:]


class Launcher:
    """Starts commands by `launcher.py`.

    Args:
        process: that file, running.
        folder: a place for the ends of commands.
    """

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self.process, self.folder = process, folder
        self.started: list[Started] = []
        assert self._line() == "ready"

    def start(
        self,
        folder: Path,
        words: list[str],
        *,
        program: str = "foreword",
        environment: Mapping[str, str] | None = None,
        keep: bool = False,
        largest_file: int | None = None,
    ) -> Started:
        """Start a command in a folder.

        Args:
            folder: where it works; made if it is not there.
            words: its arguments.
            program: "foreword", or a Python file.
            environment: what is in its environment beside ours.
            keep: a finished run leaves its checkpoints, so that they can be compared.
            largest_file: bytes beyond which the system lets no file grow.
        """
        folder.mkdir(parents=True, exist_ok=True)
        number = len(self.started)
        places = {name: self.folder / f"{number}.{name}" for name in ("out", "err", "status")}
        request = {
            "program": program,
            "arguments": words,
            "folder": str(folder),
            "environment": {**os.environ, **OFFLINE, **(environment or {})},
            "keep": keep,
            "largest_file": largest_file,
            **{name: str(place) for name, place in places.items()},
        }
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        started = Started(int(self._line()), **places)
        self.started.append(started)
        return started

    def together(
        self, folder: Path, words: list[str], *, processes: int = 2, program: str = "foreword"
    ) -> list[Started]:
        """Start a command as `torchrun` does in its processes; see `start`."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        counts = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
        ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]
        return [
            self.start(folder, words, program=program, environment={**address, **counts, **rank})
            for rank in ranks
        ]

    def run(self, folder: Path, words: list[str], *, keep: bool = False) -> float:
        """Run a command to its good end; returns the seconds it took."""
        begun = time.monotonic()
        started = self.start(folder, words, keep=keep)
        assert started.end() == 0, started.printed()
        return time.monotonic() - begun

    def close(self) -> None:
        """End what still runs."""
        for one in self.started:
            one.send(signal.SIGKILL)

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


OFFLINE = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


@contextmanager
def launching() -> Iterator[Launcher]:
    """A launcher with one thread, as a run of its own would have under OMP_NUM_THREADS=1."""
    with TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [sys.executable, str(HERE / "launcher.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **OFFLINE},
        )
        try:
            with process:
                launcher = Launcher(process, Path(folder))
                yield launcher
                launcher.close()
                assert process.stdin is not None
                process.stdin.close()
        finally:
            process.kill()
