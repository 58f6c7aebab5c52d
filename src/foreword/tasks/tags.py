"""The answer is a tag for each word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from foreword.axes.readout import Head, TokenHead
from foreword.backbone import Backbone
from foreword.backbone.layout import Pair
from foreword.data import Example
from foreword.errors import DataError
from foreword.recipe import HeadSpec, TaskId
from foreword.tasks.head import new_head
from foreword.tasks.reading import ReadTask
from foreword.tasks.rows import Prediction, Row
from foreword.tasks.stating import labels_of, limited
from foreword.tasks.text import naming
from foreword.tuned import TunedModel

_USUAL = HeadSpec()


@dataclass(frozen=True)
class Tagging(ReadTask):
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
    head: HeadSpec = _USUAL
    max_tokens: int | None = None
    stride: int = 128
    text = None
    answer = "tags"
    fields = ("words",)

    @classmethod
    def of(cls, stated: TaskId) -> Tagging:
        """The task as an artifact states it."""
        head = stated.head
        return cls(labels_of(stated), head, stated.max_tokens, stated.stride)

    @classmethod
    def labels_of(cls, example: Example) -> tuple[str, ...]:
        """The tags of an example."""
        return example.tags or ()

    @property
    def longest_input(self) -> int | None:
        """Most tokens of a window."""
        return self.max_tokens

    def example(self, given: str | Mapping[str, Any], where: str = "") -> Example:
        """Words as an example: a list, or a text that is split at blanks."""
        words = given if isinstance(given, str) else given.get("words")
        words = words.split() if isinstance(words, str) else words
        if not isinstance(words, Sequence) or not all(isinstance(w, str) for w in words):
            raise DataError(f"{where}: give a text, or `words` as a list of texts")
        return Example({"text": " ".join(words)}, where=where, words=tuple(words))

    def input_line(self, example: Example) -> str:
        """The words."""
        return " ".join(example.words or ())

    def rendered(self, backbone: Backbone, example: Example) -> str:  # noqa: ARG002
        """The words."""
        return self.input_line(example)

    def readout(self, backbone: Backbone) -> Head:
        """A head with an output for each tag."""
        return new_head(self.head, TokenHead, backbone, len(self.labels))

    def rows(
        self,
        model: TunedModel,
        example: Example,
        *,
        labelled: bool = True,
        reserve: int = 0,  # noqa: ARG002
    ) -> list[Row]:
        """A row for each window, its marks at the first tokens of the words that are read in it;
        none where no word has a token."""
        if example.words is None:
            raise DataError(f"{example.where}: has no words to tag")
        backbone, limit = model.backbone, limited(model.room(0), self.max_tokens)
        ahead = backbone.geometry.kind != "decoder"
        with naming(example):
            windows = backbone.tokens.words(example.words, limit, self.stride, ahead=ahead)
        windows = [(ids, marked) for ids, marked in windows if marked]
        if not windows and not labelled:
            return []
        if not windows:
            raise DataError(f"{example.where}: none of its words has a token in this vocabulary")
        if labelled and example.tags is None:
            raise DataError(f"{example.where}: has no tags to learn from")
        rows = []
        for ids, marked in windows:
            labels: tuple[int, ...] = ()
            if labelled:
                assert example.tags is not None
                labels = tuple(self.label_number(example, example.tags[word]) for word in marked)
            rows.append(Row(Pair(ids, [], tuple(marked.values()), labels), at=tuple(marked)))
        return rows

    def prediction(
        self,
        backbone: Backbone,  # noqa: ARG002
        example: Example,
        rows: Sequence[Row],
        outputs: Sequence[Tensor],
    ) -> Prediction:
        """The most probable tag of each word that was read, and None for any other."""
        count = len(example.words or ())
        tags: list[str | None] = [None] * count
        sure: list[float | None] = [None] * count
        for row, probabilities in zip(rows, outputs, strict=True):
            for word, of_tags in zip(row.at, probabilities, strict=True):
                assert isinstance(word, int)
                best = int(of_tags.argmax())
                tags[word], sure[word] = self.labels[best], float(of_tags[best])
        return Prediction(tuple(tags), tuple(sure))
