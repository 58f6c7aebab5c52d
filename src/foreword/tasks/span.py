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
from foreword.recipe import HeadSpec, TaskId
from foreword.tasks.head import new_head
from foreword.tasks.reading import ReadTask
from foreword.tasks.rows import Prediction, Row
from foreword.tasks.stating import limited
from foreword.tasks.text import naming
from foreword.tuned import TunedModel

_USUAL = HeadSpec()


@dataclass(frozen=True)
class Question(ReadTask):
    """A span of a context that answers a question (Devlin et al. 2019, sections 4.2 and 4.3).

    A context that is too long is read in windows that overlap; "no answer" is told by the first
    token of a row, and a span counts against it in its own window.

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
    def settled_by(cls, examples: Sequence[Example]) -> dict[str, Any]:
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
        span = (example.spans or (None,))[0]
        right = None if span is None else (span.start, span.start + len(span.text))
        rows: list[Row] = []
        for ids, segments, covered in self._cut(backbone, example, question, context, limit):
            at = (None, *covered.values())
            labels = _ordinals(at, right) if labelled else ()
            apart = self.tells_apart and backbone.tells_texts_apart and any(segments)
            kinds = tuple(segments) if apart else ()
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
        backbone: Backbone,  # noqa: ARG002
        example: Example,
        rows: Sequence[Row],
        outputs: Sequence[Tensor],
    ) -> Prediction:
        """The likeliest span of all windows, or no answer where that is allowed and likelier."""
        context = example.fields["context"]
        assert isinstance(context, str)
        best: tuple[float, float, tuple[int, int]] | None = None
        for row, (begins, ends) in zip(rows, outputs, strict=True):
            none = float(begins[0] + ends[0])
            spans = begins[1:, None] + ends[None, 1:]
            allowed = torch.ones_like(spans, dtype=torch.bool).triu().tril(self.longest - 1)
            spans = spans.masked_fill(~allowed, -torch.inf)
            if not spans.numel():
                continue
            first, last = divmod(int(spans.argmax()), spans.shape[1])
            score = float(spans[first, last])
            if best is None or score - none > best[0] - best[1]:
                begin, end = row.at[first + 1], row.at[last + 1]
                assert isinstance(begin, tuple)
                assert isinstance(end, tuple)
                best = score, none, (begin[0], end[1])
        if best is None or (self.may_be_none and best[0] <= best[1]):
            return Prediction("", 0.0 if best is None else _probability(best[1]))
        start, end = best[2]
        return Prediction(
            context[start:end], _probability(best[0]), start=start, score=best[0] - best[1]
        )


def _ordinals(
    at: Sequence[tuple[int, int] | None], span: tuple[int, int] | None
) -> tuple[int, int]:
    """Which marked tokens begin and end a span; the first for both where it is not whole here."""
    if span is None:
        return 0, 0
    begin = next((i for i, s in enumerate(at) if s is not None and s[0] <= span[0] < s[1]), 0)
    end = next((i for i, s in enumerate(at) if s is not None and s[0] < span[1] <= s[1]), 0)
    return (begin, end) if begin and end else (0, 0)


def _probability(logarithm: float) -> float:
    return float(torch.tensor(logarithm).exp())
