"""Rows of a decoder that are written together, each with a prompt and a length of its own.

Keys and values stand in slots (`slots.py`), virtual tokens in front: they are copied into a row's
slot when it enters, so that no step pays for them again, or rows share them where they are many.
Rows of similar lengths share slots (a bucket), so that a long row costs the others nothing. Sources
are read in the same passes (`line.py`); one that is longer than what a pass may read is read in
parts, in slots of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from foreword.backbone.decoding.choosing import Row, likely
from foreword.backbone.decoding.line import Line, Part, Source, Steps, Stretch
from foreword.backbone.decoding.slots import Slots
from foreword.backbone.model import Backbone
from foreword.backbone.prompts.key_values import PromptKeyValues, RowKeyValues, join_rows


@dataclass(eq=False)
class Bucket:
    """Rows of similar lengths.

    Attributes:
        slots: hold what they have read.
        rows: the state of their answers, in the order of the slots.
        shared: virtual tokens that rows share; None where no row has any.
        apart: their virtual tokens with a softmax of their own; None where no row has any.
    """

    slots: Slots
    rows: list[Row] = field(default_factory=list)
    shared: RowKeyValues | None = None
    apart: RowKeyValues | None = None

    def enter(self, row: Row, source: Source) -> None:
        """Take a row whose source stands in the next slot."""
        self.shared = self._with(self.shared, source.shared)
        self.apart = self._with(self.apart, source.apart)
        self.rows.append(row)

    def _with(self, known: RowKeyValues | None, new: PromptKeyValues | None) -> RowKeyValues | None:
        if known is None and new is None:
            return None
        return join_rows([(known, len(self.rows)), (new, 1)])

    def keep(self, rows: Sequence[int]) -> None:
        """Let all rows go but some."""
        if len(rows) == len(self.rows):
            return
        order = self.slots.keep(rows)
        self.rows = [self.rows[row] for row in order]
        kept = torch.tensor(order, dtype=torch.long)
        self.shared, self.apart = (
            None if tokens is None else tokens.taken(kept) for tokens in (self.shared, self.apart)
        )


@dataclass(eq=False)
class Reading:
    """A row whose source is not read to its end.

    Attributes:
        row: the state of its answer.
        source: what it reads.
        bucket: where it goes.
        staged: where it is read in parts.
    """

    row: Row
    source: Source
    bucket: Bucket
    staged: Slots | None = None


@dataclass(frozen=True)
class Work:
    """One pass.

    Attributes:
        buckets: whose rows go on by a token.
        parts: sources that are read, and how many tokens of each.
    """

    buckets: list[Bucket]
    parts: list[tuple[Reading, int]]


class Running:
    """Rows in slots.

    Args:
        backbone: a decoder whose attention goes through the interface.
        widths: how many columns the rows of each bucket have, the narrowest first.
        rows: how many rows there may be in all.
        tokens: how many columns those of all rows together may be.
        chunk: how many tokens of sources a pass may read.
    """

    def __init__(
        self, backbone: Backbone, widths: Sequence[int], rows: int, tokens: int, chunk: int
    ) -> None:
        self.backbone, self.chunk, self.tokens = backbone, chunk, tokens
        first = rows if len(widths) == 1 else 0
        self.buckets = [Bucket(Slots(width, first)) for width in widths]
        self.reading: list[Reading] = []
        self.most = rows

    @property
    def rows(self) -> list[Row]:
        """All rows, those that still read included."""
        written = [row for bucket in self.buckets for row in bucket.rows]
        return written + [reading.row for reading in self.reading]

    def bucket_for(self, columns: int) -> Bucket | None:
        """The narrowest one for a row of so many columns, if there is one."""
        return next((b for b in self.buckets if b.slots.columns >= columns), None)

    @property
    def held(self) -> int:
        """Columns of all rows that are here."""
        reading = sum(reading.bucket.slots.columns for reading in self.reading)
        return reading + sum(b.slots.columns * len(b.rows) for b in self.buckets)

    def enter(self, row: Row, source: Source) -> None:
        """Take a row, whose source is read in the next passes."""
        bucket = self.bucket_for(source.columns + row.how.max_new_tokens)
        assert bucket is not None, "a row is longer than every slot"
        self.reading.append(Reading(row, source, bucket))

    def work(self) -> Work:
        """What the next pass does: one token of each row, and of the sources those that came first
        as far as they fit. A source that no pass can hold is read in parts, one at a time, and
        leaves half of each pass to the others."""
        left, parts = self.chunk, []
        in_parts = next((one for one in self.reading if one.staged is not None), None)
        for reading in sorted(self.reading, key=lambda one: one is not in_parts):
            many = reading.source.left
            if many > self.chunk and in_parts is None:
                in_parts, reading.staged = reading, Slots(reading.bucket.slots.columns)
            if reading is in_parts:
                alone = len(self.reading) == 1
                many = min(many, left if alone else max(1, self.chunk // 2), left)
            if many <= left and (many <= self.chunk or reading is in_parts):
                parts.append((reading, many))
                left -= many
            if not left:
                break
        return Work([bucket for bucket in self.buckets if bucket.rows], parts)

    @torch.no_grad()
    def run(self, work: Work) -> tuple[list[Row], Tensor]:
        """One pass.

        Returns:
            The rows whose next token can be chosen, and what comes next in each: `[rows,
            vocabulary]`.
        """
        backbone = self.backbone
        steps = [
            Steps(
                backbone,
                bucket.slots,
                [row.new[-1] for row in bucket.rows],
                bucket.shared,
                bucket.apart,
            )
            for bucket in work.buckets
        ]
        stretches = self._stretches(work)
        parts: list[Part] = [*steps, *(stretch for _, stretch in stretches)]
        line = Line(parts)
        ids, line.embeddings = self._ids(parts)
        at, places = _read_at(work, stretches)
        positions = [position for part in parts for position in part.positions]
        logits = backbone.line_logits(ids, positions, line, at)
        rows = self._after(work, stretches)
        for (reading, stretch), first in places:
            _tell(reading.row, stretch, logits[first : first + len(stretch.ids)])
        return rows, logits[: len(rows)]

    def _stretches(self, work: Work) -> list[tuple[Reading, Stretch]]:
        """What is read of each source, and where it is kept: in its own slots while it is read in
        parts, else in the next free slots of its bucket."""
        rows = {id(bucket): len(bucket.rows) for bucket in self.buckets}
        places = []
        for reading, many in work.parts:
            places.append(rows[id(reading.bucket)])
            rows[id(reading.bucket)] += reading.source.left == many
        self._make_room(rows)
        return [
            (
                reading,
                Stretch(self.backbone, reading.bucket.slots, place, reading.source, many)
                if reading.staged is None
                else Stretch(self.backbone, reading.staged, 0, reading.source, many),
            )
            for (reading, many), place in zip(work.parts, places, strict=True)
        ]

    def _make_room(self, rows: dict[int, int]) -> None:
        """Have memory for so many rows of each bucket: twice as many, where that is no more than
        what is meant for all of them."""
        short = [bucket for bucket in self.buckets if rows[id(bucket)] > bucket.slots.rows]
        for bucket in short:
            taken = sum(b.slots.rows * b.slots.columns for b in self.buckets if b is not bucket)
            wanted = min(self.most, 2 * rows[id(bucket)])
            if taken + wanted * bucket.slots.columns > self.tokens:
                wanted = rows[id(bucket)]
                for other in self.buckets:
                    other.slots.resize(min(other.slots.rows, rows[id(other)]))
            bucket.slots.resize(wanted)

    def _ids(self, parts: Sequence[Part]) -> tuple[list[int], Tensor | None]:
        """The tokens of a line, and the embeddings of those that are virtual: each source's have
        ids of their own."""
        vocabulary = self.backbone.geometry.vocabulary
        ids: list[int] = []
        tables: list[Tensor] = []
        for part in parts:
            table = part.source.embeddings if isinstance(part, Stretch) else None
            moved = sum(map(len, tables))
            if table is None:
                ids += part.ids
            else:
                ids += [token + moved if token >= vocabulary else token for token in part.ids]
                tables.append(table)
        return ids, torch.cat(tables) if tables else None

    def _after(self, work: Work, stretches: Sequence[tuple[Reading, Stretch]]) -> list[Row]:
        """Write down what was read; gives the rows that write next."""
        rows = [row for bucket in work.buckets for row in bucket.rows]
        for bucket in work.buckets:
            for held in bucket.slots.held:
                held.end += 1
                held.position += 1
        for reading, stretch in stretches:
            source = reading.source
            source.read = stretch.last
            if source.left:
                continue
            if reading.staged is None:
                reading.bucket.slots.held.append(source.held())
            else:
                reading.staged.held.append(source.held())
                reading.bucket.slots.append(reading.staged)
            self.reading.remove(reading)
            reading.bucket.enter(reading.row, source)
            rows.append(reading.row)
        return rows

    def drop(self, leaves: Callable[[Row], bool]) -> None:
        """Let some rows go."""
        self.reading = [reading for reading in self.reading if not leaves(reading.row)]
        for bucket in self.buckets:
            bucket.keep([i for i, row in enumerate(bucket.rows) if not leaves(row)])


def _read_at(
    work: Work, stretches: Sequence[tuple[Reading, Stretch]]
) -> tuple[list[int], list[tuple[tuple[Reading, Stretch], int]]]:
    """Where the head is run: first for each row that writes next; then for sources whose tokens are
    told, with the number of each one's first."""
    at = list(range(sum(len(bucket.rows) for bucket in work.buckets)))
    begins, begin = [], len(at)
    for reading, stretch in stretches:
        begins.append(begin)
        begin += len(stretch.ids)
        if stretch.last == len(reading.source.ids):
            at.append(begin - 1)
    places = []
    for pair, begin in zip(stretches, begins, strict=True):
        if pair[0].row.telling.source:
            places.append((pair, len(at)))
            at += range(begin, begin + len(pair[1].ids))
    return at, places


def _tell(row: Row, stretch: Stretch, logits: Tensor) -> None:
    """How likely the tokens of a source were, of which each token predicts the next one."""
    if not stretch.first:
        row.source.append(None)
    following = stretch.source.ids[stretch.first + 1 : stretch.last + 1]
    if following:
        row.source += likely(logits[: len(following)], following, row.telling.best or 0)
