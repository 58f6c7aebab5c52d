"""What the verbs print: the one way to standard output and standard error.

Text from outside (names of files, groups, labels, answers, messages) passes here, is never markup,
and brings no control character to a terminal.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from foreword.common.characters import ascii_json, printable, to_json
from foreword.errors import RunError


class ReaderGone(Exception):
    """Who reads standard output went away, as `| head` does: an end, but no failure."""


def say(text: object = "") -> None:
    """Print a line for people."""
    line = printable(str(text)) + "\n"
    encoding = sys.stdout.encoding or "utf-8"
    with standard_output():
        sys.stdout.write(line.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()


def emit_json(value: Any) -> None:
    """Print plain data as JSON for programs, over several lines."""
    emit(to_json(value, indent=2) + "\n")


def emit(text: str) -> None:
    """Print JSON that `to_json` made, or lines of it; the line's end is the caller's."""
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = ascii_json(text)
    with standard_output():
        sys.stdout.write(text)
        sys.stdout.flush()


def complain(text: object) -> None:
    """Print a line to standard error, if anybody can read it."""
    with suppress(OSError, ValueError):
        print(printable(str(text)), file=sys.stderr, flush=True)


@contextmanager
def warnings_said() -> Iterator[None]:
    """In this block Python's warnings are lines for people: no place in the code, and no more
    control characters than other lines have."""

    def tell(message: Warning | str, *_: object, **__: object) -> None:
        complain(f"warning: {message}")

    with warnings.catch_warnings():
        warnings.showwarning = tell
        yield


@contextmanager
def standard_output() -> Iterator[None]:
    """Mistakes of writing to standard output as our own.

    Raises:
        ReaderGone: nobody reads it any more.
        RunError: it cannot be written.
    """
    try:
        yield
    except BrokenPipeError as error:
        raise ReaderGone from error
    except OSError as error:
        raise RunError(f"standard output: cannot be written: {error.strerror or error}") from error


def open_closed_streams() -> None:
    """Put something at the places of standard streams that are closed (`>&-`).

    Otherwise the next file that is opened takes the place, and is read or written instead. What
    stands there refuses to be read or written, but for standard error, which takes all.
    """
    for place, mode in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(place)
        except OSError:
            opened = os.open(os.devnull, mode)
            if opened != place:
                os.dup2(opened, place)
                os.close(opened)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def close_streams() -> None:
    """Write out what is left for the standard streams; what cannot be written is dropped.

    Otherwise the interpreter tries it again at its end, complains, and changes the exit status.

    Raises:
        RunError: standard output cannot be written.
    """
    try:
        with standard_output():
            sys.stdout.flush()
    finally:
        for place, stream in ((1, sys.stdout), (2, sys.stderr)):
            try:
                stream.flush()
            except (OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, place)
                os.close(nowhere)
