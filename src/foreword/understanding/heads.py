"""Tasks that a head answers: a label for a text, a tag for each word, a span of a context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from foreword.backbone import Backbone
from foreword.errors import DataError
from foreword.layout import Pair
from foreword.readout import Head, SequenceHead, SpanHead, TokenHead
from foreword.tasks import Example
from foreword.text import Room, TextTask, naming
from foreword.understanding.base import Answered, HeadOptions, HeadTask, Window

_USUAL = HeadOptions()


@dataclass(frozen=True)
class Classification(HeadTask):
    """A label for a text, or for two.

    Attributes:
        text: how an example becomes text, and what gives way where it is too long.
        labels: in the order of the head's outputs.
        head: what the head is made of.
    """

    text: TextTask
    labels: tuple[str, ...]
    head: HeadOptions = _USUAL
    answer: Literal["label"] = "label"

    def readout(self, backbone: Backbone) -> Head:
        """A head with an output for each label."""
        return self.head.made(SequenceHead, backbone, len(self.labels))

    def windows(
        self, backbone: Backbone, example: Example, room: Room, *, labelled: bool = True
    ) -> list[Window]:
        """One row."""
        ids, segments, cut = self.text.read(backbone, example, room)
        labels = (self.label(example, example.label),) if labelled else ()
        pair = Pair(ids, [], self._marks(backbone, ids), labels, segments)
        return [Window(pair, cut)]

    def told(
        self,
        backbone: Backbone,  # noqa: ARG002
        example: Example,  # noqa: ARG002
        windows: Sequence[Window],  # noqa: ARG002
        read: Sequence[Tensor],
    ) -> Answered:
        """The most probable label."""
        probabilities = dict(zip(self.labels, read[0].tolist(), strict=True))
        best = max(probabilities, key=probabilities.__getitem__)
        return Answered(best, probabilities[best], probabilities)

    def _marks(self, backbone: Backbone, ids: list[int]) -> tuple[int, ...]:
        pooling = self.head.pooling
        if pooling == "mean":
            return tuple(range(len(ids)))
        if pooling == "prompt":  # in a slot of the text, or in front of it
            virtual = backbone.tokens.virtual
            return (next((at for at, token in enumerate(ids) if token >= virtual), -1),)
        first = pooling == "first" or (pooling == "auto" and backbone.geometry.kind == "encoder")
        return (0,) if first else (len(ids) - 1,)


@dataclass(frozen=True)
class Tagging(HeadTask):
    """A tag for each word, read at its first token (Devlin et al. 2019, section 5.3).

    Words that do not fit are read in windows that overlap, each word in the one where most stands
    around it: before and after it, or, since a decoder sees nothing else, before it. A word that
    has no token gets no tag, and counts as wrong in every figure.

    Attributes:
        labels: in the order of the head's outputs.
        head: what the head is made of.
        max_tokens: of a window; the backbone's context if not given.
        stride: tokens that neighbouring windows share; at most half of a window.
    """

    labels: tuple[str, ...]
    head: HeadOptions = _USUAL
    max_tokens: int | None = None
    stride: int = 128
    answer: Literal["tags"] = "tags"

    def readout(self, backbone: Backbone) -> Head:
        """A head with an output for each tag."""
        return self.head.made(TokenHead, backbone, len(self.labels))

    def windows(
        self, backbone: Backbone, example: Example, room: Room, *, labelled: bool = True
    ) -> list[Window]:
        """A row for each window, its marks at the first tokens of the words that are read in it;
        none where no word has a token."""
        if example.words is None:
            raise DataError(f"{example.where}: has no words to tag")
        limit = _limit(room, self.max_tokens)(0)
        ahead = backbone.geometry.kind != "decoder"
        with naming(example):
            rows = backbone.tokens.words(example.words, limit, self.stride, ahead=ahead)
        rows = [(ids, read) for ids, read in rows if read]
        if not rows and not labelled:
            return []
        if not rows:
            raise DataError(f"{example.where}: none of its words has a token in this vocabulary")
        if labelled and example.tags is None:
            raise DataError(f"{example.where}: has no tags to learn from")
        found = []
        for ids, read in rows:
            labels: tuple[int, ...] = ()
            if labelled:
                assert example.tags is not None
                labels = tuple(self.label(example, example.tags[word]) for word in read)
            found.append(Window(Pair(ids, [], tuple(read.values()), labels), at=tuple(read)))
        return found

    def told(
        self,
        backbone: Backbone,  # noqa: ARG002
        example: Example,
        windows: Sequence[Window],
        read: Sequence[Tensor],
    ) -> Answered:
        """The most probable tag of each word that was read, and None for any other."""
        count = len(example.words or ())
        tags: list[str | None] = [None] * count
        sure: list[float | None] = [None] * count
        for window, rows in zip(windows, read, strict=True):
            for word, row in zip(window.at, rows, strict=True):
                assert isinstance(word, int)
                best = int(row.argmax())
                tags[word], sure[word] = self.labels[best], float(row[best])
        return Answered(tuple(tags), tuple(sure))


@dataclass(frozen=True)
class Question(HeadTask):
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

    head: HeadOptions = _USUAL
    max_tokens: int | None = 384
    stride: int = 128
    longest: int = 30
    may_be_none: bool = False
    tells_apart: bool = True
    labels: tuple[str, ...] = ()
    answer: Literal["span"] = "span"

    def readout(self, backbone: Backbone) -> Head:
        """A head with two outputs: begin and end."""
        return self.head.made(SpanHead, backbone, 2)

    def windows(
        self, backbone: Backbone, example: Example, room: Room, *, labelled: bool = True
    ) -> list[Window]:
        """A row for each window of the context."""
        question, context = (example.fields.get(name) for name in ("question", "context"))
        if not isinstance(question, str) or not isinstance(context, str):
            raise DataError(f"{example.where}: needs the fields `question` and `context`")
        limit = _limit(room, self.max_tokens)(0)
        span = (example.spans or (None,))[0]
        asked = None if span is None else (span.start, span.start + len(span.text))
        found: list[Window] = []
        for ids, segments, covered in self._cut(backbone, example, question, context, limit):
            at = (None, *covered.values())
            labels = _ordinals(at, asked) if labelled else ()
            apart = self.tells_apart and backbone.tells_texts_apart and any(segments)
            told = tuple(segments) if apart else ()
            found.append(Window(Pair(ids, [], (0, *covered), labels, told), at=at))
        return found

    def _cut(
        self, backbone: Backbone, example: Example, question: str, context: str, limit: int | None
    ) -> list[tuple[list[int], list[int], dict[int, tuple[int, int]]]]:
        with naming(example):
            asked = len(backbone.tokens.plain(question))
        if limit is not None and limit - asked - self.stride < 8:
            raise DataError(
                f"{example.where}: a question of {asked} tokens leaves too little of {limit} for "
                f"windows that share {self.stride}; give a larger task.max_tokens, or a smaller "
                "task.stride"
            )
        with naming(example):
            return backbone.tokens.windows(question, context, limit, self.stride)

    def told(
        self,
        backbone: Backbone,  # noqa: ARG002
        example: Example,
        windows: Sequence[Window],
        read: Sequence[Tensor],
    ) -> Answered:
        """The likeliest span of all windows, or no answer where that is allowed and likelier."""
        context = example.fields["context"]
        assert isinstance(context, str)
        best: tuple[float, float, tuple[int, int]] | None = None
        for window, (begins, ends) in zip(windows, read, strict=True):
            none = float(begins[0] + ends[0])
            spans = begins[1:, None] + ends[None, 1:]
            allowed = torch.ones_like(spans, dtype=torch.bool).triu().tril(self.longest - 1)
            spans = spans.masked_fill(~allowed, -torch.inf)
            if not spans.numel():
                continue
            first, last = divmod(int(spans.argmax()), spans.shape[1])
            score = float(spans[first, last])
            if best is None or score - none > best[0] - best[1]:
                begin, end = window.at[first + 1], window.at[last + 1]
                assert isinstance(begin, tuple)
                assert isinstance(end, tuple)
                best = score, none, (begin[0], end[1])
        if best is None or (self.may_be_none and best[0] <= best[1]):
            return Answered("", 0.0 if best is None else _probability(best[1]))
        start, end = best[2]
        return Answered(
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


def _limit(room: Room, most: int | None) -> Room:
    def limited(answer: int) -> int | None:
        fits = room(answer)
        return fits if most is None else most if fits is None else min(fits, most)

    return limited
