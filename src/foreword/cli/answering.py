"""Inputs from texts, files and streams, in groups that are answered together."""

from __future__ import annotations

import select
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from foreword.cli.destination import Destination
from foreword.common.characters import to_json
from foreword.data.lines import LINE_BYTES
from foreword.errors import DataError, UserError
from foreword.names import MOST_TOGETHER, Together

if TYPE_CHECKING:
    from foreword.data.inputs import Given
    from foreword.recipe import TaskId

STANDARD_INPUT = "standard input"
_CHUNK = 2**16

GROUPS = 8
"""Batches of a file that are answered before what is told of them is written."""
Advance = Callable[[int], None]


@dataclass(frozen=True)
class Answering:
    """What answers, loaded.

    Attributes:
        answers: from inputs, and how many came before them, to what is told of each; calls its last
            argument with the number of inputs that are done.
        check: raises what is wrong with inputs before any of them is answered; with it, a file's
            answers are written some at a time where they do not go to a file.
    """

    answers: Callable[[list[Given], int, Advance], list[dict[str, Any]]]
    check: Callable[[list[Given]], None] | None = None


@dataclass(frozen=True)
class Asked:
    """What a verb is asked to answer.

    Attributes:
        texts: given as they are, the first to be answered.
        source: a file's name, `-` for standard input; None where there is none.
        format: of the source; told by its name or first line if not given.
        encoding: of the source.
        limit: how many are answered at most.
        batch_size: how many are answered together.
    """

    texts: Sequence[str]
    source: str | None
    format: str | None
    encoding: str
    limit: int | None
    batch_size: Together

    @property
    def group(self) -> int:
        """How many of a stream are answered together."""
        return MOST_TOGETHER if self.batch_size == "auto" else self.batch_size


def answer(
    inputs: Asked,
    *,
    load: Callable[[], Answering],
    task: Callable[[], TaskId] | None,
    title: str,
    to: Destination,
) -> str:
    """Answer all inputs, and print a row of JSON for each.

    A stream is answered as its lines arrive: those that are there already together, up to
    `batch_size`. A file is read to its end before anything is loaded.

    Args:
        inputs: what is asked.
        load: loads what answers.
        task: reads what an artifact says of its own data, where there is one artifact.
        title: of the progress.
        to: gets the rows; a file when all are answered, anything else group by group.

    Returns:
        The rows, where `to` is a file; else nothing, since they were written.
    """
    if not inputs.texts and inputs.source is None:
        raise UserError("give inputs with --text, or a file (or - for standard input) with --input")
    from foreword.data.inputs import Given, read_inputs

    texts = (Given(f"--text {number}", text) for number, text in enumerate(inputs.texts, 1))
    source = inputs.source
    with _stream(source) as stream:
        if stream is not None:
            return _answer_stream(inputs, texts, stream, load, to)
    read: Iterator[Given] = iter(())
    if source is not None:
        own = None if task is None else task()
        read = read_inputs(
            source,
            inputs.format,
            encoding=inputs.encoding,
            trained_on=None if own is None else own.format,
            words=1 if own is None else own.words,
        )
    given = list(islice(chain(texts, read), inputs.limit))
    loaded = load()
    together = len(given)
    if loaded.check is not None:
        loaded.check(given)
        together = GROUPS * inputs.group
    from foreword.common.progress import progress_for_terminal

    progress = progress_for_terminal()
    try:
        progress.begin(title, len(given))
        written = [
            _to(to, _rows(loaded, given[at : at + together], at, progress.advance))
            for at in range(0, len(given), together)
        ]
    finally:
        progress.end()
    return "".join(written)


def _answer_stream(
    inputs: Asked,
    texts: Iterator[Given],
    stream: Arriving,
    load: Callable[[], Answering],
    to: Destination,
) -> str:
    from foreword.data.inputs import arriving_inputs

    lines = arriving_inputs(stream.name, stream, inputs.format, encoding=inputs.encoding)
    loaded = load()
    given = islice(chain(texts, lines), inputs.limit)
    written = []
    done = 0
    for group in _groups(given, stream.has_line, inputs.group):
        written.append(_to(to, _rows(loaded, group, done, lambda _: None)))
        done += len(group)
    return "".join(written)


def _rows(loaded: Answering, given: list[Given], done: int, advance: Advance) -> str:
    answers = loaded.answers(given, done, advance)
    return "".join(to_json(one.beside(its)) + "\n" for one, its in zip(given, answers, strict=True))


def _to(to: Destination, rows: str) -> str:
    if not to.streams:
        return rows
    to.write(rows)
    return ""


def _groups(given: Iterator[Given], more: Callable[[], bool], most: int) -> Iterator[list[Given]]:
    group = []
    for one in given:
        group.append(one)
        if len(group) == most or not more():
            yield group
            group = []
    if group:
        yield group


class Arriving:
    """The lines of a stream, each as soon as it is there.

    Args:
        name: what messages call it.
        handle: read in the parts that the system gives.
    """

    def __init__(self, name: str, handle: BinaryIO) -> None:
        self.name, self.handle = name, handle
        self._lines: list[bytes] = []
        self._tail = bytearray()
        self._ended = False

    def __iter__(self) -> Iterator[bytes]:
        while self._lines or not self._ended:
            while not self._lines and not self._ended:
                self._fill()
            if self._lines:
                yield self._lines.pop()
        if self._tail:
            yield bytes(self._tail)

    def has_line(self) -> bool:
        """Whether a line that is not empty can be had without waiting."""
        while not any(line.strip() for line in self._lines):
            if self._ended or not self._holds_more():
                return bool(self._ended and self._tail.strip())
            self._fill()
        return True

    def _holds_more(self) -> bool:
        try:
            place = self.handle.fileno()
        except OSError:  # bytes in memory
            return True
        return bool(select.select([place], [], [], 0)[0])

    def _fill(self) -> None:
        try:
            chunk = self.handle.read1(_CHUNK)  # type: ignore[attr-defined]
        except OSError as error:
            raise DataError(f"{self.name}: cannot be read: {error.strerror}") from error
        self._ended = not chunk
        before, feed, after = chunk.rpartition(b"\n")
        if feed:
            whole = bytes(self._tail) + before
            self._lines = [line + b"\n" for line in reversed(whole.split(b"\n"))] + self._lines
            self._tail = bytearray(after)
        else:
            self._tail += after
        if len(self._tail) > LINE_BYTES:
            raise DataError(f"{self.name}: has a line of more than {LINE_BYTES:,} bytes")


@contextmanager
def _stream(source: str | None) -> Iterator[Arriving | None]:
    """Standard input, a FIFO or a terminal; None where the source is something else."""
    if source == "-":
        if sys.stdin is None:
            raise DataError(f"{STANDARD_INPUT}: is closed; give a file's name with --input")
        yield Arriving(STANDARD_INPUT, sys.stdin.buffer)
    elif source is not None and _arrives(Path(source)):
        with Path(source).open("rb") as handle:
            yield Arriving(source, handle)
    else:
        yield None


def _arrives(file: Path) -> bool:
    try:
        mode = file.stat().st_mode
    except (OSError, ValueError):
        return False  # said by who reads it
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)
