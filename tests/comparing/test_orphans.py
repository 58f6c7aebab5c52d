"""Workers of a comparison whose command was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = """
import multiprocessing, os, sys, time
from concurrent.futures import ProcessPoolExecutor
from foreword.comparing import executing

def work(path):
    open(path, "w").write(str(os.getpid()))
    time.sleep(600)

if __name__ == "__main__":
    pool = ProcessPoolExecutor(
        2,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=executing._begin_worker,
        initargs=("cpu", False, 1, ()),
    )
    for number in (0, 1):
        pool.submit(work, os.path.join(sys.argv[1], f"worker-{number}"))
    time.sleep(600)
"""


@pytest.mark.slow
def test_no_worker_outlives_a_command_that_was_killed(tmp_path: Path) -> None:
    """Nothing holds its runs, so that the same command goes on at once."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    places = [tmp_path / f"worker-{number}" for number in (0, 1)]
    command = subprocess.Popen([sys.executable, str(program), str(tmp_path)])
    try:
        numbers = [int(_when(lambda place=place: _read(place))) for place in places]
        command.send_signal(signal.SIGKILL)
        command.wait(30)
        for number in numbers:
            _when(lambda number=number: not _runs(number))
    finally:
        command.kill()
        command.wait()


def _when(what):
    """What a function gives once it gives something."""
    end = time.monotonic() + 60
    while not (given := what()):
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.05)
    return given


def _read(place: Path) -> str:
    return place.read_text(encoding="utf-8") if place.exists() else ""


def _runs(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{number}/stat")
    return (
        not status.exists()
        or status.read_text(encoding="ascii").rsplit(")", 1)[1].split()[0] != "Z"
    )
