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

from foreword.backbone.call import Call, way
from foreword.backbone.decoding.beams import search
from foreword.backbone.decoding.choosing import End, Row, choose, real_tokens
from foreword.backbone.decoding.cohort import Cohort
from foreword.backbone.decoding.options import Decoding
from foreword.backbone.decoding.running import Running
from foreword.backbone.model import Backbone

TOGETHER = 8
"""New rows wait until a share of this many of the places is free: reading several at once costs
little more than reading one."""


@dataclass(frozen=True)
class Written:
    """What one step did for a row.

    Attributes:
        number: the row's, as `admit` gave it.
        token: the token that was written; None where the row ended without one.
        ended: why the row is at an end, and has left; None while it goes on.
    """

    number: int
    token: int | None
    ended: End | None


class StepDecoder:
    """Rows of one backbone that are written together.

    Args:
        backbone: a decoder or an encoder-decoder.
        rows: how many rows may be written at a time.
        columns: the most positions of a row: virtual tokens, source and answer.
    """

    def __init__(self, backbone: Backbone, *, rows: int, columns: int) -> None:
        self.backbone, self.rows, self.columns = backbone, rows, columns
        self._running = Running(backbone, rows, columns) if backbone.steps_by_attention else None
        self._cohorts: list[Cohort] = []
        self._next = 0

    @property
    def active(self) -> int:
        """Rows that are being written."""
        return sum(len(group.rows) for group in self._groups)

    @property
    def free(self) -> int:
        """Rows that may be admitted."""
        return self.rows - self.active

    @property
    def _groups(self) -> list[Running | Cohort]:
        return [*([] if self._running is None else [self._running]), *self._cohorts]

    @torch.no_grad()
    def admit(
        self,
        calls: Sequence[Call],
        hows: Sequence[Decoding],
        seeds: Sequence[int | None] | None = None,
    ) -> list[int]:
        """Read the sources of new rows.

        Args:
            calls: rows with their prompts, on the backbone's device; a decoder's rows may be padded
                on either side, those of an encoder-decoder hold the start of the answer.
            hows: for each row, how it is decoded; without beams.
            seeds: for each row, of its draws; from torch's random state where not given.

        Returns:
            Each row's number.
        """
        many = sum(call.rows for call in calls)
        assert many == len(hows) <= self.free, "more rows than there is room for"
        assert all(how.num_beams == 1 for how in hows), "beams are not written step by step"
        vocabulary, device = self.backbone.geometry.vocabulary, self.backbone.device
        rows: list[Row] = []
        groups: dict[tuple[object, ...], list[tuple[Call, list[Row]]]] = {}
        for call in calls:
            entered = []
            for read in real_tokens(call.layout, vocabulary):
                at = len(rows)
                seed = None if seeds is None else seeds[at]
                rows.append(Row.of(self._next, hows[at], read, seed, device))
                entered.append(rows[-1])
                self._next += 1
            groups.setdefault(self._together(call), []).append((call, entered))
        for members in groups.values():
            call = Call.joined([call for call, _ in members], vocabulary, "left")
            self._enter(call, [row for _, own in members for row in own])
        return [row.number for row in rows]

    def _together(self, call: Call) -> tuple[object, ...]:
        """Calls that are alike in this are read in one pass."""
        kind = way(self.backbone.geometry, call)
        begun = call.layout.source is not None
        return kind, call.layout.input_ids.shape[1] if begun else 0

    def _enter(self, call: Call, rows: list[Row]) -> None:
        g = self.backbone.geometry
        in_steps = call.layout.before is None or (g.caches_heads and not g.slides)
        if self._running is None or not in_steps:
            self._cohorts.append(Cohort(self.backbone, call, rows))
        else:
            self._running.enter(call, rows)

    @torch.no_grad()
    def step(self) -> list[Written]:
        """Write one token of every row; rows that are at an end leave."""
        written: list[Written] = []
        for group in self._groups:
            if not group.rows:
                continue
            chosen = choose(group.rows, group.logits)
            for row, token in zip(group.rows, chosen, strict=True):
                before = len(row.new)
                row.take(token, self.backbone.tokens)
                new = row.new[-1] if len(row.new) > before else None
                written.append(Written(row.number, new, row.ended))
            group.keep([i for i, row in enumerate(group.rows) if row.ended is None])
            if group.rows:
                group.forward()
        self._cohorts = [cohort for cohort in self._cohorts if cohort.rows]
        return written

    def release(self, number: int) -> None:
        """Let a row go before it is at an end; nothing if it has left already."""
        for group in self._groups:
            if any(row.number == number for row in group.rows):
                group.keep([i for i, row in enumerate(group.rows) if row.number != number])
        self._cohorts = [cohort for cohort in self._cohorts if cohort.rows]


def columns_of(call: Call, answer: int) -> int:
    """The positions that the longest row of a call may need, with an answer of so many tokens."""
    layout, front = call.layout, call.front()
    before = 0 if layout.before is None else layout.before.input_ids.shape[1]
    virtual = 0 if front is None else front.length
    return before + virtual + layout.input_ids.shape[1] + answer


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
        columns=columns_of(call, how.max_new_tokens),
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
    together = max(1, decoder.rows // TOGETHER)
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
