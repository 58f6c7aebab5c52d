"""The command line in this process, and what every end of it has to keep to.

Whatever is given, a verb ends with status 0, or with 2 and a message in plain words; it raises
nothing, takes less than ten seconds of processor time, says no control characters, and leaves no
file that was not asked for.
"""

from __future__ import annotations

import io
import json
import os
import signal
import stat
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from foreword.cli import app
from foreword.common.characters import printable

SECONDS, ALARM = 10, 120
"""Most processor time of a verb, and after how long a wait without any is given up."""
JARGON = ("pydantic", "nput should", "instance of", "Traceback", "object at 0x")
LONGEST = 6000
"""Most characters of a message."""


@dataclass(frozen=True)
class Situation:
    """What is given to the command line.

    Attributes:
        arguments: as a shell gives them.
        makes: files and folders that may be new afterwards, or changed.
        standard_input: bytes that can be read there.
        may_fail: whether the machine may be at fault (status 1).
    """

    arguments: Sequence[str]
    makes: frozenset[str] = frozenset()
    standard_input: bytes = b""
    may_fail: bool = False


@dataclass(frozen=True)
class Ended:
    """How it ended."""

    status: int
    out: str
    err: str


class _Hangs(BaseException):
    """A verb waits for something that does not come."""


def run(arguments: Sequence[str], standard_input: bytes = b"") -> Ended:
    """Run a verb; exceptions that would be tracebacks come through."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["foreword", *arguments])
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(standard_input)))
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        status = app._run()
    said = []
    for stream in (out, err):
        stream.flush()
        said.append(stream.buffer.getvalue().decode("utf-8"))  # type: ignore[attr-defined]
    return Ended(status, *said)


def check(situation: Situation, world: Path) -> Ended:
    """Run a situation in a folder; AssertionError says what was wrong with its end."""
    before = _listing(world)
    begun = time.process_time()
    with _alarm(), pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.filterwarnings("default", message=".*answers may differ")
        patch.chdir(world)
        ended = run(situation.arguments, situation.standard_input)
    took = time.process_time() - begun
    assert took < SECONDS, f"took {took:.0f} s of processor time"
    allowed = (0, 1, 2) if situation.may_fail else (0, 2)
    assert ended.status in allowed, f"status {ended.status}: {ended.err}"
    for name, text in {"standard output": ended.out, "standard error": ended.err}.items():
        assert text == printable(text), f"{name} has control characters: {text!r}"
    if ended.status:
        assert "foreword: " in ended.err, f"nothing was said: {ended.err!r}"
        assert len(ended.err) < LONGEST, f"{len(ended.err)} characters: {ended.err[:2000]}"
        for word in JARGON:  # that of the library behind the flags is not ours
            assert word not in ended.err or "Invalid value for" in ended.err, ended.err
    makes = situation.makes if not ended.status else frozenset()
    after = {
        name: what
        for name, what in _listing(world).items()
        if not any(name == made or name.startswith(f"{made}/") for made in makes)
    }
    kept = {name: what for name, what in before.items() if name in after or not makes}
    changed = {name for name in {*kept, *after} if kept.get(name) != after.get(name)}
    assert not changed, f"status {ended.status}, and these are new, gone or changed: {changed}"
    return ended


def rows(text: str) -> list[dict[str, Any]]:
    """Lines of JSON, of which none holds what JSON has not."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


@contextmanager
def _alarm() -> Iterator[None]:
    def hangs(*_: object) -> None:
        raise _Hangs

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(ALARM)
    try:
        yield
    except _Hangs as error:
        raise AssertionError(f"hangs: {ALARM} s without an end") from error
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _listing(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Everything below a folder with its kind, size and time of change; links are not followed."""
    found = {}
    for here, folders, names in os.walk(folder):
        for name in [*folders, *names]:
            place = Path(here, name)
            state = place.lstat()
            told = (stat.S_IFMT(state.st_mode), 0, 0)
            if not place.is_dir():
                told = (told[0], state.st_size, state.st_mtime_ns)
            found[str(place.relative_to(folder))] = told
    return found
