"""Where everything of a batch lies: the one thing that the axes share.

A row of a batch is `source tokens, target tokens, padding` (or padding first). An encoder-decoder
has two rows for each example: what its encoder reads is the `source` of what its decoder reads.

Virtual tokens that enter as keys and values have no column of their own; the layout knows how many
there are, since position ids depend on it. Virtual tokens that enter as input embeddings have
columns; their ids lie above the vocabulary.

Knows nothing about models, prompts or text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

Side = Literal["left", "right"]
PositionRule = Literal["shift", "keep"]


@dataclass(frozen=True, eq=False)
class Taught:
    """What a teacher says at N predicted tokens: the k likeliest ones, and all others together.

    Attributes:
        tokens: `[N, k]` whole numbers, the likeliest first.
        logs: `[N, k]`, the logarithms of their probabilities.
        rest: `[N]`, the logarithm of what all other tokens have together.
    """

    tokens: Tensor
    logs: Tensor
    rest: Tensor

    def to(self, device: torch.device | str) -> Taught:
        """The same on another device."""
        return Taught(self.tokens.to(device), self.logs.to(device), self.rest.to(device))

    @staticmethod
    def joined(parts: Sequence[Taught]) -> Taught:
        """What is said at the tokens of several rows, one after the other; of as many tokens
        each."""
        return Taught(
            torch.cat([part.tokens for part in parts]),
            torch.cat([part.logs for part in parts]),
            torch.cat([part.rest for part in parts]),
        )


@dataclass(frozen=True)
class Pair:
    """An example as tokens, before it is laid out.

    Attributes:
        source: what is read.
        target: what is written; empty where a head answers.
        marks: which tokens of the source a head reads; -1 is the first of all that stands in the
            row, virtual tokens included.
        labels: what it should say: numbers of labels, or of one label the probability of each.
        segments: which text each token of the source belongs to; empty where that is not told.
        between: stretches of the target that are read and not predicted, such as what others say
            between two turns of a conversation: the first token of each, and the one after it.
        prompt: the number of the prompt that the row takes, where a model has several.
        beside: further rows that are weighed against this one: a question's other answers. They
            are laid out after it.
        asks: how many things are predicted, where that is neither each token of the target nor each
            label.
        taught: what a teacher says at each predicted token, where that is learned in place of the
            tokens.
    """

    source: list[int]
    target: list[int] = field(default_factory=list)
    marks: tuple[int, ...] = ()
    labels: tuple[int, ...] | tuple[float, ...] = ()
    segments: tuple[int, ...] = ()
    between: tuple[tuple[int, int], ...] = ()
    prompt: int = 0
    beside: tuple[Pair, ...] = ()
    asks: int | None = None
    taught: Taught | None = None

    @property
    def predicted(self) -> list[int]:
        """The tokens of the target that are predicted."""
        heard = {at for begin, end in self.between for at in range(begin, end)}
        return [token for at, token in enumerate(self.target) if at not in heard]

    @property
    def rows(self) -> tuple[Pair, ...]:
        """Itself and what stands beside it."""
        return (self, *self.beside)

    @property
    def length(self) -> int:
        """Tokens in all."""
        return sum(len(row.source) + len(row.target) for row in self.rows)

    @property
    def answers(self) -> int:
        """How many things are predicted: tokens of the target, or labels."""
        if self.asks is not None:
            return self.asks
        soft = any(isinstance(label, float) for label in self.labels)
        heard = sum(end - begin for begin, end in self.between)
        return len(self.target) - heard + (1 if soft else len(self.labels))


@dataclass(frozen=True, eq=False)
class Layout:
    """A padded batch of B rows and T columns.

    Attributes:
        input_ids: `[B, T]` int64; padding columns hold `pad_id`, and only the mask tells them.
        attention_mask: `[B, T]` bool; True at real tokens.
        position_ids: `[B, T]` int64; the first real token of a row has `P` under the rule "shift"
            (the paper's and PEFT's) and 0 under "keep".
        target_mask: `[B, T]` bool; True at target tokens, the ones that are predicted.
        virtual: P, the virtual tokens before each row that have no column.
        source: what the encoder reads, where this is what the decoder of an encoder-decoder reads.
        marks: `[B, T]` bool; True at the tokens whose states a head reads.
        labels: what the head should say, row after row; how many a row has, the head knows.
            Numbers of labels, or with a fraction their probabilities.
        segments: `[B, T]` int64; 1 at tokens of a second text, where the model tells texts apart.
        before: what stands in the same rows before the virtual tokens, where those stand between
            two parts of a row: it is read first, and sees none of them. Padded on the left.
        prompts: `[B]` int64, the number of each row's prompt, until a call has the prompts
            themselves; None where all rows take the first.
        taught: what a teacher says at the predicted tokens, in the order of `target_ids`.
    """

    input_ids: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    target_mask: Tensor
    virtual: int
    source: Layout | None = None
    marks: Tensor | None = None
    labels: Tensor | None = None
    segments: Tensor | None = None
    before: Layout | None = None
    prompts: Tensor | None = None
    taught: Taught | None = None

    @classmethod
    def of(
        cls,
        sources: Sequence[Sequence[int]],
        targets: Sequence[Sequence[int]] | None = None,
        *,
        virtual: int = 0,
        columns: Sequence[int] = (),
        positions: PositionRule = "shift",
        first_position: int = 0,
        side: Side = "right",
        pad_id: int = 0,
        source: Layout | None = None,
        marks: Sequence[Sequence[int]] = (),
        labels: Sequence[Sequence[float]] = (),
        segments: Sequence[Sequence[int]] = (),
        between: Sequence[Sequence[tuple[int, int]]] = (),
    ) -> Layout:
        """Lay out token lists: sources alone (to decode from), or each followed by its target.

        Args:
            sources: one list for each row.
            targets: one list for each row, or none.
            virtual: P.
            columns: ids of virtual tokens that stand before every row and have columns; under the
                rule "keep" they all have the first position.
            positions: see `position_ids`.
            first_position: the model's own first position id (RoBERTa's is 2).
            side: where padding goes.
            pad_id: what it is filled with.
            source: the encoder's part.
            marks: for each row, which tokens of its source a head reads, counted from 0; -1 is the
                first of all that stands in the row, virtual tokens included.
            labels: for each row, what the head should say.
            segments: for each row, the text that each token of its source belongs to.
            between: for each row, the stretches of its target that are not predicted.
        """
        targets = targets if targets is not None else [()] * len(sources)
        rows = [[*columns, *front, *target] for front, target in zip(sources, targets, strict=True)]
        width = max(map(len, rows))
        ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
        mask = torch.zeros(len(rows), width, dtype=torch.bool)
        target_mask = torch.zeros_like(mask)
        for i, (row, target) in enumerate(zip(rows, targets, strict=True)):
            start = 0 if side == "right" else width - len(row)
            end = start + len(row)
            ids[i, start:end] = torch.tensor(row, dtype=torch.long)
            mask[i, start:end] = True
            target_mask[i, end - len(target) : end] = True
            for heard, spoken in between[i] if between else ():
                target_mask[i, end - len(target) + heard : end - len(target) + spoken] = False
        first, without = (virtual, 0) if positions == "shift" else (0, len(columns))
        order = (mask.long().cumsum(1) - 1 - without).clamp(min=0)
        starts = mask.long().argmax(1) + len(columns)
        return cls(
            ids,
            mask,
            order + first + first_position,
            target_mask,
            virtual,
            source,
            _marked(marks, starts, len(columns), width) if marks else None,
            torch.tensor([label for row in labels for label in row]) if labels else None,
            _segments(segments, starts, width) if any(segments) else None,
        )

    def to(self, device: torch.device | str) -> Layout:
        """The same layout on another device."""
        moved = None if self.labels is None else self.labels.to(device)
        taught = None if self.taught is None else self.taught.to(device)
        return replace(self._changed(lambda part: part.to(device), moved), taught=taught)

    def taken(self, rows: Tensor) -> Layout:
        """Some rows, by their numbers `[N]`; without labels and what a teacher says, since a row
        may have several."""
        return self._changed(lambda part: part[rows])

    def repeated(self, times: int) -> Layout:
        """Every row so many times, one after the other; without labels and what a teacher says."""
        return self._changed(lambda part: part.repeat_interleave(times, 0))

    def _changed(self, change: Callable[[Tensor], Tensor], labels: Tensor | None = None) -> Layout:
        """The same layout after one change of every tensor that has a row for each of the batch's:
        its own, and those of `source` and `before`."""

        def changed(part: Any) -> Any:
            if isinstance(part, Layout):
                return part._changed(change)
            return change(part) if isinstance(part, Tensor) else part

        parts = {part.name: changed(getattr(self, part.name)) for part in fields(self)}
        return Layout(**{**parts, "labels": labels, "taught": None})

    @staticmethod
    def joined(layouts: Sequence[Layout], side: Side = "right") -> Layout:
        """The rows of several layouts, one after the other; without labels and what a teacher says.

        All are padded on one side to the widest. What one of them lacks (segments, marks, a part
        before) is idle in its rows.
        """

        def of(name: str) -> Any:
            parts = [getattr(layout, name) for layout in layouts]
            first = next((part for part in parts if part is not None), None)
            if first is None:
                return None
            if isinstance(first, Layout):
                every = [
                    _idle(each) if part is None else part
                    for part, each in zip(parts, layouts, strict=True)
                ]
                return Layout.joined(every, "left" if name == "before" else "right")
            if not isinstance(first, Tensor):
                return max(parts)
            if first.ndim == 1:
                numbers = zip(parts, layouts, strict=True)
                return torch.cat(
                    [first.new_zeros(own.rows) if part is None else part for part, own in numbers]
                )
            width = max(layout.input_ids.shape[1] for layout in layouts)
            return torch.cat(
                [
                    first.new_zeros(layout.rows, width)
                    if part is None
                    else nn.functional.pad(part, _padding(side, width - part.shape[1]))
                    for part, layout in zip(parts, layouts, strict=True)
                ]
            )

        names = [part.name for part in fields(Layout) if part.name not in ("labels", "taught")]
        return Layout(**{name: of(name) for name in names})

    def with_ids_moved(self, first: int, by: int | Tensor) -> Layout:
        """The same layout with ids from `first` on larger by so many: those of virtual tokens,
        where their rows stand further down in a table.

        Args:
            first: the first id of a virtual token.
            by: how many further down; or that of each row, `[B, 1]`.
        """
        if isinstance(by, int) and not by:
            return self
        source = None if self.source is None else self.source.with_ids_moved(first, by)
        ids = self.input_ids
        return replace(self, input_ids=torch.where(ids >= first, ids + by, ids), source=source)

    def followed_by(self, texts: Sequence[Sequence[int]]) -> Layout:
        """Every row once for each of several texts, which stands behind its last token.

        Row r with text t is row `r · len(texts) + t`, without labels. The added tokens belong to
        the text of the row's last one, and are neither marked nor predicted. Rows must be padded
        on the right.
        """
        many, longest = len(texts), max(map(len, texts))
        rows = self.repeated(many)
        device = rows.input_ids.device
        words = torch.zeros(many, longest, dtype=torch.long, device=device)
        there = torch.zeros(many, longest, dtype=torch.bool, device=device)
        for i, text in enumerate(texts):
            words[i, : len(text)] = torch.tensor(list(text), dtype=torch.long, device=device)
            there[i, : len(text)] = True
        words, there = words.repeat(self.rows, 1), there.repeat(self.rows, 1)
        last = rows.attention_mask.sum(1, keepdim=True) - 1
        step = torch.arange(1, longest + 1, device=device)
        at = last + step
        own = rows._widened(longest)
        added = {
            "input_ids": torch.where(there, words, own.input_ids.gather(1, at)),
            "attention_mask": there,
            "position_ids": rows.position_ids.gather(1, last) + step,
        }
        if rows.segments is not None:
            added["segments"] = rows.segments.gather(1, last).expand(-1, longest)
        parts = {name: getattr(own, name).scatter(1, at, part) for name, part in added.items()}
        return replace(own, **parts)

    def _widened(self, columns: int) -> Layout:
        """The same rows with so many idle columns more on the right; what lies in `source` and
        `before` stays as wide as it is, and a row's prompt has no columns."""
        wider = replace(self, source=None, before=None, prompts=None)._changed(
            lambda part: nn.functional.pad(part, (0, columns)), self.labels
        )
        return replace(wider, source=self.source, before=self.before, prompts=self.prompts)

    @property
    def rows(self) -> int:
        """B."""
        return self.input_ids.shape[0]

    @property
    def shifted(self) -> bool:
        """Whether the text's positions come after those of virtual tokens without columns."""
        return self.virtual > 0 and int(self.position_ids[0, 0]) == self.virtual

    def reading_positions(self) -> Tensor:
        """Flat indices into `[B·T]` of the tokens whose logits predict a target, row by row: `[N]`.

        A target in the first column is predicted by nothing and must not occur.
        """
        flat = self.target_mask.flatten().nonzero().squeeze(1)
        return flat - 1

    def target_ids(self) -> Tensor:
        """The predicted tokens, in the order of `reading_positions`: `[N]` int64."""
        return self.input_ids[self.target_mask]

    def target_rows(self) -> Tensor:
        """For each predicted token the row it belongs to: `[N]` int64."""
        return self.target_mask.nonzero()[:, 0]


def _padding(side: Side, columns: int) -> tuple[int, int]:
    return (columns, 0) if side == "left" else (0, columns)


def _idle(like: Layout) -> Layout:
    """One idle column for each row of a layout."""
    ids = like.input_ids.new_zeros(like.rows, 1)
    mask = torch.zeros_like(ids, dtype=torch.bool)
    return Layout(ids, mask, ids, mask, 0)


def _marked(marks: Sequence[Sequence[int]], starts: Tensor, columns: int, width: int) -> Tensor:
    marked = torch.zeros(len(marks), width, dtype=torch.bool)
    for row, (at, start) in enumerate(zip(marks, starts.tolist(), strict=True)):
        marked[row, [start + mark if mark >= 0 else start - columns for mark in at]] = True
    return marked


def _segments(segments: Sequence[Sequence[int]], starts: Tensor, width: int) -> Tensor:
    laid = torch.zeros(len(segments), width, dtype=torch.long)
    for row, (texts, start) in enumerate(zip(segments, starts.tolist(), strict=True)):
        laid[row, start : start + len(texts)] = torch.tensor(texts, dtype=torch.long)
    return laid
