"""The answer is a span of a context."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from foreword.axes.readout import Head, SpanHead
from foreword.backbone import Backbone
from foreword.backbone.layout import Pair
from foreword.data import Example, linearise
from foreword.errors import DataError
from foreword.recipe import HeadSpec, TaskId, TaskSpec
from foreword.tasks.head import new_head
from foreword.tasks.reading import ReadTask
from foreword.tasks.rows import Candidate, Prediction, Row
from foreword.tasks.stating import limited
from foreword.tasks.text import naming
from foreword.tuned import TunedModel

_USUAL = HeadSpec()


@dataclass(frozen=True)
class Question(ReadTask):
    """A span of a context that answers a question (Devlin et al. 2019, sections 4.2 and 4.3).

    A context that is too long is read in windows that overlap, and a span in the one where it
    stands best: where most is around it, or, since a decoder sees nothing else, before it. "No
    answer" is told by the first token of a row, and a span counts against it in its own window.

    Where several answers are acceptable, each is trained in a row of its own.

    Attributes:
        head: what the head is made of.
        max_tokens: of a window, the question included; the backbone's context if not given.
        stride: tokens that neighbouring windows share.
        longest: most tokens of an answer.
        may_be_none: whether "no answer" is an answer.
        tells_apart: whether a backbone that can is told which tokens are the context's.
    """

    head: HeadSpec = _USUAL
    max_tokens: int | None = 384
    stride: int = 128
    longest: int = 30
    may_be_none: bool = False
    tells_apart: bool = True
    text = None
    labels = ()
    answer = "span"
    fields = ("question", "context")

    @classmethod
    def settled_by(
        cls,
        examples: Sequence[Example],
        spec: TaskSpec,  # noqa: ARG003
    ) -> dict[str, Any]:
        """Whether a question may have no answer."""
        return {"may_be_none": any(example.spans == () for example in examples)}

    @classmethod
    def of(cls, stated: TaskId) -> Question:
        """The task as an artifact states it."""
        return cls(
            stated.head,
            stated.max_tokens,
            stated.stride,
            stated.longest_answer,
            stated.may_be_none,
            stated.tells_apart,
        )

    @property
    def longest_input(self) -> int | None:
        """Most tokens of a window."""
        return self.max_tokens

    def example(self, given: str | Mapping[str, Any], where: str = "") -> Example:
        """A question and its context as an example."""
        if isinstance(given, str):
            raise DataError(f"{where}: give `question` and `context` by name, as JSON")
        return super().example(given, where)

    def input_line(self, example: Example) -> str:
        """The question."""
        return linearise(example.fields.get("question", ""))

    def rendered(self, backbone: Backbone, example: Example) -> str:  # noqa: ARG002
        """The question, and under it the context."""
        return "\n".join(str(example.fields.get(name, "")) for name in self.fields)

    def read_at(self, backbone: Backbone, row: Row) -> tuple[list[str], list[str]]:
        """The tokens of the answer; the first token where the row holds none."""
        tokens, marks = backbone.tokens.names(row.pair.source), row.pair.marks
        if not row.pair.labels:
            return tokens[:1], []
        begin, end = (int(label) for label in row.pair.labels)
        if not begin:
            return tokens[:1], ["no answer here"]
        return tokens[marks[begin] : marks[end] + 1], ["the answer begins and ends"]

    def readout(self, backbone: Backbone) -> Head:
        """A head with two outputs: begin and end."""
        return new_head(self.head, SpanHead, backbone, 2)

    def rows(
        self,
        model: TunedModel,
        example: Example,
        *,
        labelled: bool = True,
        reserve: int = 0,  # noqa: ARG002
    ) -> list[Row]:
        """A row for each window of the context."""
        question, context = (example.fields.get(name) for name in ("question", "context"))
        if not isinstance(question, str) or not isinstance(context, str):
            raise DataError(f"{example.where}: needs the fields `question` and `context`")
        backbone, limit = model.backbone, limited(model.room(0), self.max_tokens)
        right = [(span.start, span.start + len(span.text)) for span in example.spans or ()]
        rows: list[Row] = []
        for ids, segments, covered in self._cut(backbone, example, question, context, limit):
            at = (None, *covered.values())
            apart = self.tells_apart and backbone.tells_texts_apart and any(segments)
            kinds = tuple(segments) if apart else ()
            for labels in _labels(at, right) if labelled else [()]:
                rows.append(Row(Pair(ids, [], (0, *covered), labels, kinds), at=at))
        return rows

    def _cut(
        self, backbone: Backbone, example: Example, question: str, context: str, limit: int | None
    ) -> list[tuple[list[int], list[int], dict[int, tuple[int, int]]]]:
        with naming(example):
            count = len(backbone.tokens.plain(question))
        if limit is not None and limit - count - self.stride < 8:
            raise DataError(
                f"{example.where}: a question of {count} tokens leaves too little of {limit} for "
                f"windows that share {self.stride}; give a larger task.max_tokens, or a smaller "
                "task.stride"
            )
        with naming(example):
            return backbone.tokens.windows(question, context, limit, self.stride)

    def prediction(
        self,
        backbone: Backbone,
        example: Example,
        rows: Sequence[Row],
        outputs: Sequence[Tensor],
    ) -> Prediction:
        """The likeliest span of all windows, or no answer where that is allowed and likelier."""
        context = example.fields["context"]
        assert isinstance(context, str)
        ahead = backbone.geometry.kind != "decoder"
        spans: list[Found] = []
        for number, (row, (begins, ends)) in enumerate(zip(rows, outputs, strict=True)):
            none = float(begins[0] + ends[0])
            scores = begins[1:, None] + ends[None, 1:]
            allowed = torch.ones_like(scores, dtype=torch.bool).triu().tril(self.longest - 1)
            read = len(scores)  # fewer where a context's first token tells no answer, too
            allowed &= _stands_best(number, rows, ahead=ahead)[:read, :read]
            scores = scores.masked_fill(~allowed, -torch.inf)
            many = min(_LIKELIEST, int(allowed.sum()))
            for place in scores.flatten().topk(many).indices.tolist():
                first, last = divmod(place, scores.shape[1])
                begin, end = row.at[first + 1], row.at[last + 1]
                assert isinstance(begin, tuple)
                assert isinstance(end, tuple)
                spans.append((float(scores[first, last]), none, begin[0], end[1]))
        best_first = _apart(sorted(spans, key=lambda one: one[1] - one[0]))
        candidates = tuple(
            Candidate(context[start:end], start, _probability(score), score - none)
            for score, none, start, end in best_first
        )
        best = candidates[0] if candidates else None
        if best is None or (self.may_be_none and best.score <= 0):
            sure = 0.0 if best is None else _probability(best_first[0][1])
            return Prediction("", sure, candidates=candidates)
        return Prediction(
            best.answer,
            best.probability,
            start=best.start,
            score=best.score,
            candidates=candidates,
        )


_LIKELIEST = 200
"""Spans of a window that are compared."""
CANDIDATES = 20
"""Spans that a prediction holds at most, BERT's `n_best_size`."""


def _stands_best(number: int, rows: Sequence[Row], *, ahead: bool) -> Tensor:
    """For each begin and end of a span in a window whether no other window has more around it, the
    first of several: `[tokens, tokens]`."""
    own = rows[number].at[1:]
    begin = torch.arange(len(own))[:, None]
    end = torch.arange(len(own))[None, :]

    def around(window: Sequence[object], offset: int) -> Tensor:
        first, last = begin + offset, end + offset
        inside = (first >= 0) & (last < len(window))
        before, after = first, len(window) - 1 - last
        most = torch.minimum(before.expand_as(inside), after.expand_as(inside)) if ahead else before
        return torch.where(inside, most.expand_as(inside), -1)

    most, best = around(own, 0), torch.ones(len(own), len(own), dtype=torch.bool)
    for other, row in enumerate(rows):
        offset = None if other == number else _offset(own, row.at[1:])
        if offset is not None:
            theirs = around(row.at[1:], offset)
            best &= theirs < most if other < number else theirs <= most
    return best


def _offset(own: Sequence[object], other: Sequence[object]) -> int | None:
    """How many tokens further a token of one window stands in another; None where they share
    none."""
    for at in range(len(other)):
        if _agree(own, other[at:]):
            return at
    for at in range(len(own)):
        if _agree(own[at:], other):
            return -at
    return None


def _agree(one: Sequence[object], other: Sequence[object]) -> bool:
    """Whether two stretches of a text begin with the same tokens, as far as both go."""
    both = min(len(one), len(other))
    return both > 0 and one[0] == other[0] and one[:both] == other[:both]


Found = tuple[float, float, int, int]
"""The logarithm of a span's probability, that of no answer in its window, where it begins, ends."""


def _apart(spans: Sequence[Found]) -> list[Found]:
    """The first of some spans, none of which overlap."""
    kept: list[Found] = []
    for span in spans:
        if len(kept) == CANDIDATES:
            break
        if all(span[3] <= start or end <= span[2] for _, _, start, end in kept):
            kept.append(span)
    return kept


def _labels(
    at: Sequence[tuple[int, int] | None], spans: Sequence[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Which marked tokens begin and end each of some spans that is whole here; the first for both
    where none is."""
    ends = dict.fromkeys(_ordinals(at, span) for span in spans)
    return [pair for pair in ends if pair != (0, 0)] or [(0, 0)]


def _ordinals(at: Sequence[tuple[int, int] | None], span: tuple[int, int]) -> tuple[int, int]:
    """Which marked tokens begin and end a span; the first for both where it is not whole here."""
    begin = next((i for i, s in enumerate(at) if s is not None and s[0] <= span[0] < s[1]), 0)
    end = next((i for i, s in enumerate(at) if s is not None and s[0] < span[1] <= s[1]), 0)
    return (begin, end) if begin and end else (0, 0)


def _probability(logarithm: float) -> float:
    return float(torch.tensor(logarithm).exp())
