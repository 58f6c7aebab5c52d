"""Decoding step by step: rows are admitted, written a token at a time, and released.

Every row has settings, a seed, stop words and a most of its own, and a prompt of its own. A row
that is at an end leaves its place to the next one (iteration-level batching; Yu et al. 2022,
"Orca", section 3.1).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from foreword.backbone.call import Call, columns_of, way
from foreword.backbone.decoding.anew import Anew
from foreword.backbone.decoding.beams import search
from foreword.backbone.decoding.choosing import End, Likely, Row, Telling, choose, real_tokens
from foreword.backbone.decoding.cohort import Cohort
from foreword.backbone.decoding.line import kept_columns, sources_of
from foreword.backbone.decoding.options import Decoding
from foreword.backbone.decoding.running import Running, Work
from foreword.backbone.model import Backbone

CHUNK = 2048
"""Most tokens of sources that a pass reads, where nothing else is asked for."""
TOGETHER = 8
"""Rows that share a cache begin together: new ones wait until a share of this many of the places is
free."""


@dataclass(frozen=True)
class Written:
    """What one step did for a row.

    Attributes:
        number: the row's, as `admit` gave it.
        token: the token that was written; None where the row ended without one.
        ended: why the row is at an end, and has left; None while it goes on.
        text: what became certain of its text, where that is told.
        likely: how likely the token was, or the end token, where that is told.
        source: how likely the tokens were that the row has read, where that is told; in its first
            step alone, and None for the first token.
        error: what the row failed by.
    """

    number: int
    token: int | None
    ended: End | None
    text: str = ""
    likely: Likely | None = None
    source: tuple[Likely | None, ...] = ()
    error: Exception | None = None


class StepDecoder:
    """Rows of one backbone that are written together.

    Args:
        backbone: a decoder or an encoder-decoder.
        rows: how many rows may be written at a time.
        columns: the most positions of a row: virtual tokens but those that rows share
            (`kept_columns`), source and answer. Or several such numbers: rows of similar lengths
            share memory that is as wide as the next of these.
        tokens: how many positions those of all rows together may be; as many as `rows` of the
            longest have if not given.
        chunk: how many tokens of new sources a step may read; a longer source takes several steps,
            in which other rows go on. Rows of an encoder-decoder, and of decoders that are written
            with transformers' own cache, read their sources whole.
        isolates: whether a row by which a step fails ends as "failed", and the others go on;
            otherwise the step raises.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        rows: int,
        columns: int | Sequence[int],
        tokens: int | None = None,
        chunk: int = CHUNK,
        isolates: bool = False,
    ) -> None:
        widths = (columns,) if isinstance(columns, int) else tuple(sorted(columns))
        self.backbone, self.rows, self.isolates = backbone, rows, isolates
        self.tokens = rows * widths[-1] if tokens is None else tokens
        self._running = (
            Running(backbone, widths, rows, self.tokens, chunk)
            if backbone.steps_by_attention
            else None
        )
        self._entering: list[tuple[Call, list[Row]]] = []
        self._cohorts: list[Cohort | Anew] = []
        self._next = 0
        self._widths = widths

    @property
    def active(self) -> int:
        """Rows that are being read or written."""
        return len(self._rows)

    @property
    def free(self) -> int:
        """Rows that may be admitted."""
        return self.rows - self.active

    @property
    def _rows(self) -> list[Row]:
        running = [] if self._running is None else self._running.rows
        entering = [row for _, rows in self._entering for row in rows]
        return [*running, *entering, *(row for cohort in self._cohorts for row in cohort.rows)]

    @property
    def cohorts(self) -> int:
        """Groups of rows that share a cache, each with a forward pass of its own in a step."""
        return len(self._cohorts)

    def fits(self, columns: int) -> bool:
        """Whether a row of so many positions may be admitted now."""
        return self.free > 0 and self._held + self._width(columns) <= self.tokens

    def holds(self, columns: int) -> bool:
        """Whether a row of so many positions may be admitted at all."""
        return columns <= self._widths[-1] and self._width(columns) <= self.tokens

    def _width(self, columns: int) -> int:
        return next((width for width in self._widths if width >= columns), columns)

    @property
    def _held(self) -> int:
        """Positions that are taken."""
        running = 0 if self._running is None else self._running.held
        apart = [cohort.held for cohort in self._cohorts]
        entering = [
            self._width(columns_of(call, row.how.max_new_tokens))
            for call, rows in self._entering
            for row in rows
        ]
        return running + sum(apart) + sum(entering)

    def admit(
        self,
        calls: Sequence[Call],
        hows: Sequence[Decoding],
        seeds: Sequence[int | None] | None = None,
        tellings: Sequence[Telling] | None = None,
    ) -> list[int]:
        """Take new rows; their sources are read in the next steps.

        Args:
            calls: rows with their prompts, on the backbone's device; a decoder's rows may be padded
                on either side, those of an encoder-decoder hold the start of the answer.
            hows: for each row, how it is decoded; without beams.
            seeds: for each row, of its draws; from torch's random state where not given.
            tellings: for each row, what is told beside its tokens.

        Returns:
            Each row's number.
        """
        many = sum(call.rows for call in calls)
        assert many == len(hows) <= self.free, "more rows than there is room for"
        assert all(how.num_beams == 1 for how in hows), "beams are not written step by step"
        vocabulary, device = self.backbone.geometry.vocabulary, self.backbone.device
        numbers: list[int] = []
        for call in calls:
            entered = []
            for read in real_tokens(call.layout, vocabulary):
                at = len(numbers)
                seed = None if seeds is None else seeds[at]
                telling = None if tellings is None else tellings[at]
                tokens = self.backbone.tokens
                row = Row.of(self._next, hows[at], read, seed, device, tokens, telling)
                entered.append(row)
                numbers.append(row.number)
                self._next += 1
            self._enter(call, entered)
        return numbers

    def _enter(self, call: Call, rows: list[Row]) -> None:
        g, layout = self.backbone.geometry, call.layout
        in_steps = layout.before is None or (g.caches_heads and not g.slides)
        if self._running is None or not in_steps:
            assert layout.source is None or not any(row.telling.source for row in rows)
            self._entering.append((call, rows))
            return
        for row, source in zip(rows, sources_of(self.backbone, call), strict=True):
            self._running.enter(row, source)

    def _together(self, call: Call) -> tuple[object, ...]:
        """Calls that are alike in this are read in one pass."""
        kind = way(self.backbone.geometry, call)
        begun = call.layout.source is not None
        return kind, call.layout.input_ids.shape[1] if begun else 0

    @torch.no_grad()
    def step(self) -> list[Written]:
        """Write one token of every row whose source is read; rows that are at an end leave.

        Raises:
            Exception: what a forward pass raises, unless the decoder isolates.
        """
        failed: list[Row] = []
        begun = self._begin(failed)
        written = [one for cohort in begun for one in self._write_cohort(cohort, failed)]
        if self._running is not None and self._running.rows:
            for rows, logits in self._pass(self._running, failed):
                written += self._choose(rows, logits)
        self._running_drop({row.number for row in failed})
        self._cohorts = [cohort for cohort in self._cohorts if cohort.rows]
        return written + [_written(row, None) for row in failed]

    def _begin(self, failed: list[Row]) -> list[Cohort | Anew]:
        """Cohorts, those of new rows included; gives all."""
        groups: dict[tuple[object, ...], list[tuple[Call, list[Row]]]] = {}
        entering, self._entering = self._entering, []
        for call, rows in entering:
            groups.setdefault(self._together(call), []).append((call, rows))
        for members in groups.values():
            self._cohorts += self._cohort(members, failed)
        return list(self._cohorts)

    def _cohort(
        self, members: list[tuple[Call, list[Row]]], failed: list[Row]
    ) -> list[Cohort | Anew]:
        rows = [row for _, own in members for row in own]
        try:
            vocabulary = self.backbone.geometry.vocabulary
            call = Call.joined([call for call, _ in members], vocabulary, "left")
            kind = Anew if self.backbone.reads_anew else Cohort
            return [kind(self.backbone, call, rows)]
        except Exception as error:
            if not self.isolates:
                raise
            if len(members) > 1:
                return [one for member in members for one in self._cohort([member], failed)]
            _fail(rows, error, failed)
            return []

    def _write_cohort(self, cohort: Cohort | Anew, failed: list[Row]) -> list[Written]:
        try:
            written = self._choose(cohort.rows, cohort.next())
        except Exception as error:
            if not self.isolates:
                raise
            _fail(cohort.rows, error, failed)
            written = []
        cohort.keep([i for i, row in enumerate(cohort.rows) if row.ended is None])
        return written

    def _pass(self, running: Running, failed: list[Row]) -> list[tuple[list[Row], Tensor]]:
        """One pass over the rows in slots; where it fails, one for those that go on, and one for
        each source."""
        work = running.work()
        try:
            return [running.run(work)]
        except Exception as error:
            if not self.isolates:
                raise
            whole = error
        apart = [Work([bucket], []) for bucket in work.buckets]
        apart += [Work([], [part]) for part in work.parts]
        done = []
        for one in apart:
            try:
                if len(apart) == 1:
                    raise whole
                done.append(running.run(one))
            except Exception as error:
                rows = [row for bucket in one.buckets for row in bucket.rows]
                _fail(rows + [reading.row for reading, _ in one.parts], error, failed)
        return done

    def _choose(self, rows: Sequence[Row], logits: Tensor) -> list[Written]:
        written = []
        end = self.backbone.tokens.eos_id
        for row, token in zip(rows, choose(rows, logits), strict=True):
            new = row.take(token, end) if row.ended is None else None
            written.append(_written(row, new))
        self._running_drop({row.number for row in rows if row.ended is not None})
        return written

    def _running_drop(self, numbers: set[int]) -> None:
        if self._running is not None and numbers:
            self._running.drop(lambda row: row.number in numbers)

    def release(self, number: int) -> None:
        """Let a row go before it is at an end; nothing if it has left already."""
        self._running_drop({number})
        for cohort in self._cohorts:
            cohort.keep([i for i, row in enumerate(cohort.rows) if row.number != number])
        self._cohorts = [cohort for cohort in self._cohorts if cohort.rows]
        entering, self._entering = self._entering, []
        for call, rows in entering:
            kept = [i for i, row in enumerate(rows) if row.number != number]
            if len(kept) == len(rows):
                self._entering.append((call, rows))
            elif kept:
                at = torch.tensor(kept)
                self._entering.append((call.taken(at), [rows[i] for i in kept]))


def _fail(rows: Sequence[Row], error: Exception, failed: list[Row]) -> None:
    for row in rows:
        row.fail(error)
        failed.append(row)


def _written(row: Row, token: int | None) -> Written:
    """What a step did for a row; what it has to tell is told."""
    text, source = "", tuple(row.source)
    row.source = []
    if row.text is not None and row.telling.text:
        text = row.text.take() if row.ended is None else row.text.take() + row.text.end()
    return Written(row.number, token, row.ended, text, row.likely, source, row.error)


def generate(
    backbone: Backbone, call: Call, how: Decoding, seed: int | None = None
) -> list[list[int]]:
    """Answer every row; returns the new tokens, end token left off.

    Args:
        backbone: decodes.
        call: a decoder's rows are left-padded; an encoder-decoder's hold the start of the answer,
            and their `source` the question.
        how: decoding.
        seed: of the first row's draws; the next rows have the next numbers.
    """
    if how.num_beams > 1:
        return search(backbone, call, how, seed)
    many = call.rows
    return write(
        backbone,
        lambda rows: [(call if len(rows) == many else call.taken(torch.tensor(rows)), rows)],
        [how] * many,
        [None if seed is None else seed + row for row in range(many)],
        rows=many,
        columns=kept_columns(backbone, call, how.max_new_tokens),
    )


Arrange = Callable[[list[int]], Sequence[tuple[Call, list[int]]]]
"""Rows, by their numbers, as calls; and which rows each call holds, in its order."""


def write(
    backbone: Backbone,
    arrange: Arrange,
    hows: Sequence[Decoding],
    seeds: Sequence[int | None],
    *,
    rows: int,
    columns: int,
    advance: Callable[[int], None] = lambda _: None,
) -> list[list[int]]:
    """Answer many rows, some at a time; those that are at an end make room for the next.

    Args:
        backbone: decodes.
        arrange: makes calls of rows.
        hows: for each row, how it is decoded; without beams.
        seeds: for each row, of its draws.
        rows: how many are written at a time.
        columns: the most positions of a row.
        advance: called with the number of rows that are at an end.

    Returns:
        The new tokens of each row, end token left off.
    """
    decoder = StepDecoder(backbone, rows=min(rows, len(hows)), columns=columns)
    waiting = deque(range(len(hows)))
    answers: list[list[int]] = [[] for _ in hows]
    rows_of: dict[int, int] = {}
    together = 1 if backbone.steps_by_attention else max(1, decoder.rows // TOGETHER)
    while waiting or decoder.active:
        if waiting and decoder.free >= min(together, len(waiting)):
            taken = [waiting.popleft() for _ in range(min(decoder.free, len(waiting)))]
            arranged = arrange(taken)
            order = [row for _, members in arranged for row in members]
            numbers = decoder.admit(
                [call for call, _ in arranged],
                [hows[row] for row in order],
                [seeds[row] for row in order],
            )
            rows_of.update(zip(numbers, order, strict=True))
        ended = 0
        for written in decoder.step():
            if written.token is not None:
                answers[rows_of[written.number]].append(written.token)
            ended += written.ended is not None
        if ended:
            advance(ended)
    return answers
