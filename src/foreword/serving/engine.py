"""The engine: one thread that writes and reads the answers to all requests together.

A request is taken on by any thread, and its listener is called with what is known of its answer,
step by step, from the engine's own thread. It knows nothing of HTTP, of names or of files.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Self

import torch

from foreword.backbone import Backbone, StepDecoder, Written, columns_of, kept_columns, packed
from foreword.errors import BusyError, DataError
from foreword.serving.jobs import Counts, EngineOptions, Job, Ticket, Told
from foreword.serving.memory import packs, positions_in_memory
from foreword.tasks import Answered, Reader, Request, Writing

LONGEST = 8192
"""Positions of a row, where neither the backbone nor an option says how many there are."""
COHORTS = 4
"""How many groups of rows that share a cache may go on beside each other; new rows wait for one of
them to end, and begin together."""
WIDEN = 4
"""How many times as long as those of the next narrower bucket the rows of a bucket may be."""
NARROWEST = 256
BROKEN = 3
"""After so many failed steps without one that succeeds an engine calls itself unhealthy."""
_log = logging.getLogger("foreword.serving")


class Engine:
    """Answers jobs of any prompts on one backbone.

    Args:
        backbone: the one that the models of all jobs share.
        options: how much is done at a time.

    Attributes:
        counts: what was done so far.
    """

    def __init__(self, backbone: Backbone, options: EngineOptions | None = None) -> None:
        self.options = options or EngineOptions()
        self.backbone = packed(backbone) if self.options.packed and packs(backbone) else backbone
        self.counts = Counts()
        self.longest = self.options.longest or _longest(backbone)
        self.tokens = self.options.tokens or positions_in_memory(
            backbone, self.longest, self.options.rows
        )
        self._decoder = self._new_decoder()
        self._reader = Reader()
        self._waiting: deque[Ticket] = deque()
        self._writing: dict[int, Ticket] = {}
        self._reading: dict[int, Ticket] = {}
        self._changed = threading.Condition()
        self._arrived: list[Ticket] = []
        self._gone: set[int] = set()
        self._next = 0
        self._failures = 0
        self._closing, self._abandoning = False, False
        self._thread = threading.Thread(target=self._run, name="foreword engine", daemon=True)
        self._thread.start()

    def _new_decoder(self) -> StepDecoder:
        widths = [NARROWEST]
        while widths[-1] < self.longest:
            widths.append(min(WIDEN * widths[-1], self.longest))
        return StepDecoder(
            self.backbone,
            rows=self.options.rows,
            columns=[min(width, self.longest) for width in widths],
            tokens=self.tokens,
            chunk=self.options.chunk,
            isolates=True,
        )

    @property
    def waiting(self) -> int:
        """Jobs that were taken on and not begun."""
        return len(self._arrived) + len(self._waiting)

    @property
    def active(self) -> int:
        """Jobs that are being answered."""
        return len(self._writing) + len(self._reading)

    @property
    def healthy(self) -> bool:
        """Whether it answers."""
        return self._thread.is_alive() and self._failures < BROKEN

    def submit(self, jobs: Sequence[Job]) -> list[int]:
        """Take on all of some jobs, or none.

        Args:
            jobs: their models share the engine's backbone.

        Returns:
            The number of each, by which it can be cancelled.

        Raises:
            DataError: an input is too long, alone or with its answer, or lacks a field; or there
                are more jobs than may ever wait.
            BusyError: too many wait already, or the engine is closing.
        """
        if len(jobs) > self.options.queue:
            raise DataError(
                f"the request is for {len(jobs):,} answers, more than the {self.options.queue:,} "
                "that may wait here (`queue`); ask for fewer at a time"
            )
        tickets = [self._ticket(job) for job in jobs]
        with self._changed:
            if self._closing:
                raise BusyError("the server is stopping; ask again later", closing=True)
            if self.waiting + len(jobs) > self.options.queue:
                raise BusyError(
                    f"{self.waiting} requests wait already and {len(jobs)} more would be over the "
                    f"limit of {self.options.queue}; ask again later",
                    retry_after=self._until_free(),
                )
            for ticket in tickets:
                ticket.number = self._next
                self._next += 1
            self._arrived += tickets
            self._changed.notify()
        return [ticket.number for ticket in tickets]

    def _ticket(self, job: Job) -> Ticket:
        if isinstance(job.work, Request):
            return Ticket(-1, job, rows=job.work.rows())
        work, model, how = job.work, job.work.model, job.work.how
        with torch.no_grad():
            call = model.call(model.arrange([work.source], side="left", prompts=[work.prompt]))
        columns = columns_of(call, how.max_new_tokens)
        kept = kept_columns(model.backbone, call, how.max_new_tokens)
        if columns > self.longest:
            raise DataError(
                f"input and answer need {columns} positions: {columns - how.max_new_tokens} for "
                f"the input with its virtual tokens and {how.max_new_tokens} for the answer, but "
                f"there are {self.longest}; shorten one of them"
            )
        if not self._decoder.holds(kept):
            raise DataError(
                f"input and answer take {kept} positions of memory, {how.max_new_tokens} of them "
                f"for the answer, but there are {self.tokens}; shorten one of them"
            )
        return Ticket(-1, job, call, kept)

    def _until_free(self) -> float:
        """Seconds after which a place may be free: an estimate."""
        counts = self.counts
        seconds = counts.seconds / counts.steps if counts.steps else 0.1
        works = [ticket.job.work for ticket in tuple(self._writing.values())]
        longest = max((w.how.max_new_tokens for w in works if isinstance(w, Writing)), default=16)
        return max(1.0, seconds * longest * self.waiting / self.options.rows)

    def cancel(self, number: int) -> None:
        """Forget a job: its row is free before the next step, and its listener hears no more.
        Nothing where it is answered already."""
        with self._changed:
            self._gone.add(number)
            self._changed.notify()

    def close(self, seconds: float = 0.0) -> None:
        """Take nothing on any more, finish what was taken on, and end.

        Args:
            seconds: after which what is not finished ends with an error.
        """
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(seconds)
        with self._changed:
            self._abandoning = True
            self._changed.notify()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        while True:
            try:
                if not self._take():
                    return
                self._admit()
                self._write()
                self._read()
            except Exception as error:
                _log.critical("the engine begins anew", exc_info=error)
                self._failures += 1
                self._fail_all(error)
                self._decoder = self._new_decoder()

    @property
    def _busy(self) -> bool:
        return bool(self._waiting or self._writing or self._reading)

    def _take(self) -> bool:
        """Take what others have brought, waiting for it where there is nothing to do; False at the
        end."""
        with self._changed:
            while not (self._arrived or self._busy or self._closing):
                self._gone.clear()
                self._changed.wait()
            arrived, self._arrived = self._arrived, []
            gone, self._gone = self._gone, set()
            abandoning = self._abandoning
            self._waiting.extend(arrived)
        if gone:
            self._forget(gone)
        if abandoning:
            self._fail_all(BusyError("the server has stopped", closing=True))
        return self._busy or not self._closing

    def _forget(self, gone: set[int]) -> None:
        self._waiting = deque(t for t in self._waiting if t.number not in gone)
        for row, ticket in list(self._writing.items()):
            if ticket.number in gone:
                self._decoder.release(row)
                del self._writing[row]
        for number in gone & self._reading.keys():
            self._reader.drop(number)
            del self._reading[number]

    def _admit(self) -> None:
        """Begin jobs in the order in which they came: what is written as far as it fits, what is
        read at once, since it waits for no row."""
        full = False
        for ticket in tuple(self._waiting):
            if ticket.call is None:
                assert isinstance(ticket.job.work, Request)
                self._reader.add(ticket.number, ticket.job.work, ticket.rows)
                self._reading[ticket.number] = ticket
            elif full or not self._decoder.fits(ticket.columns) or self._decoder.cohorts >= COHORTS:
                full = True
                continue
            else:
                assert isinstance(ticket.job.work, Writing)
                work = ticket.job.work
                (row,) = self._decoder.admit(
                    [ticket.call], [work.how], [work.seed], [ticket.job.telling]
                )
                self._writing[row] = ticket
            self._waiting.remove(ticket)

    def _write(self) -> None:
        """One step of all answers that are written."""
        if not self._writing:
            return
        begun, rows = time.perf_counter(), len(self._writing)
        try:
            written = self._decoder.step()
        except Exception as error:
            self._step_failed(error)
            return
        failed = [one for one in written if one.ended == "failed"]
        for one in failed[:1]:
            _log.error("an answer failed", exc_info=one.error)
        self._failures = self._failures + 1 if len(failed) == rows else 0
        counts = self.counts
        counts.failed_steps += bool(failed)
        counts.steps, counts.rows = counts.steps + 1, counts.rows + rows
        counts.tokens += sum(one.token is not None for one in written)
        counts.seconds += time.perf_counter() - begun
        for one in written:
            ticket = self._writing[one.number]
            if one.ended is not None:
                del self._writing[one.number]
            self._tell(ticket, one)

    def _step_failed(self, error: Exception) -> None:
        """A step failed as a whole: its answers end, and a new decoder goes on."""
        _log.error("a step failed", exc_info=error)
        self._failures += 1
        self.counts.failed_steps += 1
        tickets, self._writing = list(self._writing.items()), {}
        self._decoder = self._new_decoder()
        for row, ticket in tickets:
            self._tell(ticket, Written(row, None, "failed", error=error))

    def _read(self) -> None:
        """Read some rows of the examples that wait; where that fails, each example's by itself."""
        if not self._reading:
            return
        batch = self._reader.next(self.options.rows, self.options.chunk)
        answered: list[Answered] = []
        try:
            answered = self._reader.read_batch(batch)
        except Exception:
            for number in dict.fromkeys(one.number for one, _ in batch):
                try:
                    own = [at for at in batch if at[0].number == number]
                    answered += self._reader.read_batch(own)
                except Exception as error:
                    _log.error("reading an example failed", exc_info=error)
                    self._reader.drop(number)
                    self._tell(self._reading.pop(number), Told(None, error))
        self.counts.read += len(batch)
        for one in answered:
            self._tell(self._reading.pop(one.number), Told(one.prediction))

    def _fail_all(self, error: Exception) -> None:
        tickets = [*self._waiting, *self._writing.values(), *self._reading.values()]
        for row in self._writing:
            self._decoder.release(row)
        self._waiting.clear()
        self._writing.clear()
        self._reading.clear()
        self._reader = Reader()
        for ticket in tickets:
            written = isinstance(ticket.job.work, Writing)
            event = Written(-1, None, "failed", error=error) if written else Told(None, error)
            self._tell(ticket, event)

    def _tell(self, ticket: Ticket, event: Written | Told) -> None:
        try:
            ticket.job.listener(event)
        except Exception as error:
            _log.error("a listener failed; its job is forgotten", exc_info=error)
            self.cancel(ticket.number)


def _longest(backbone: Backbone) -> int:
    """The positions that a row may have; an encoder-decoder has those of both its parts."""
    g = backbone.geometry
    own = min(g.context or LONGEST, LONGEST)
    return 2 * own if g.kind == "encoder-decoder" else own
