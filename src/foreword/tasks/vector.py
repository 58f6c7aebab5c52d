"""The answer is a vector, which is near those of texts that belong together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from foreword.axes.readout import Vectors
from foreword.backbone import Backbone
from foreword.backbone.layout import Pair
from foreword.data import Example
from foreword.errors import ArtifactError, DataError
from foreword.recipe import HeadSpec, TaskId, VectorSpec, written_input
from foreword.scoring import retrieval
from foreword.tasks.base import Verb
from foreword.tasks.head import marks_of
from foreword.tasks.reading import ReadTask
from foreword.tasks.rows import Prediction, Row
from foreword.tasks.text import Templates
from foreword.tuned import TunedModel


@dataclass(frozen=True)
class Embedding(ReadTask):
    """A vector for a text, learned from pairs.

    Attributes:
        text: how an example becomes text, and what gives way where it is too long.
        second: the same of a text that belongs to it.
        column: what `second` calls that text.
        vector: what a vector is, and how it is learned.
        scored: whether pairs say how alike they are.
    """

    text: Templates
    second: Templates
    column: str
    vector: VectorSpec = field(default_factory=VectorSpec)
    scored: bool = False
    labels = ()
    answer = "vector"
    verb: ClassVar[Verb] = "embed"

    @classmethod
    def of(cls, stated: TaskId) -> Embedding:
        """The task as an artifact states it.

        Raises:
            ArtifactError: it names no column of paired texts, or its templates have other slots for
                virtual tokens.
        """
        column = stated.paired
        if column is None:
            raise ArtifactError("task.paired: is missing; it names the column of paired texts")
        common: dict[str, Any] = {
            "max_tokens": stated.max_tokens,
            "chat_template": stated.chat_template,
            "chat_options": stated.chat_options,
        }
        text = Templates.of(written_input(stated.input), truncate=stated.truncate, **common)
        plain = f"{{{column}:cut}}" if text.cuts else f"{{{column}}}"
        second = Templates.of(stated.second or plain, **common)
        if text.soft != second.soft:
            raise ArtifactError(
                f"task.second: has {second.soft} {{soft}} slots, but task.input {text.soft}"
            )
        return cls(text, second, column, stated.vector, stated.similarity is not None)

    def of_paired(self) -> Embedding:
        """The task of the texts that are paired with others, read by `second`."""
        return replace(self, text=self.second)

    def readout(self, backbone: Backbone) -> Vectors:
        """The pooled states.

        Raises:
            BackboneError: the backbone is an encoder-decoder.
        """
        backbone.check_takes_head()
        spec = self.vector
        loss = spec.of("scored" if self.scored else None)
        return Vectors(loss, scale=spec.scale, normalise=spec.normalise)

    def rows(
        self,
        model: TunedModel,
        example: Example,
        *,
        labelled: bool = True,
        reserve: int = 0,  # noqa: ARG002
    ) -> list[Row]:
        """A row for the text, and one for each that is paired with it; to train, one for each pair,
        with the second text beside the first."""
        first = self._row(model, self.text, example)
        beside = [
            self._row(model, self.second, _with(example, self.column, text))
            for text in example.paired or ()
        ]
        if not labelled:
            return [first, *beside]
        if not beside:
            raise DataError(f"{example.where}: has no paired text to learn from")
        labels = (self._similarity(example),) if self.scored else ()
        pair = replace(first.pair, labels=labels, asks=1)
        return [Row(replace(pair, beside=(b.pair,)), max(first.cut, b.cut)) for b in beside]

    def rows_of_tokens(self, model: TunedModel, tokens: Sequence[int]) -> list[Row]:
        """One row, of the ids as they are: special tokens are among them where they are wanted."""
        return [self._row_of(model.backbone, list(tokens))]

    def prediction(
        self,
        backbone: Backbone,  # noqa: ARG002
        example: Example,  # noqa: ARG002
        rows: Sequence[Row],  # noqa: ARG002
        outputs: Sequence[Tensor],
    ) -> Prediction:
        """The text's vector, and those of what is paired with it."""
        first, *beside = (tuple(output.tolist()) for output in outputs)
        return Prediction(first, beside=tuple(beside))

    def compared(
        self, predictions: list[Prediction], examples: Sequence[Example]
    ) -> list[Prediction]:
        """The cosine of each pair, and where the paired text stands among all of the set."""
        known = [bool(one.beside) for one in predictions]
        if not predictions or not all(known):
            return predictions
        inputs = np.array([one.answer for one in predictions], dtype=np.float64)
        texts = np.array([v for one in predictions for v in one.beside], dtype=np.float64)
        own = [example.paired or () for example in examples]
        firsts = np.array([one.beside[0] for one in predictions], dtype=np.float64)
        cosines = retrieval.cosines(inputs, firsts).tolist()
        places: list[int | None] = [None] * len(predictions)
        if not self.scored:
            names = [text for mine in own for text in mine]
            places = [*retrieval.ranks(inputs, texts, names, own)]
        return [
            replace(one, answer=cosine, beside=(), rank=place)
            for one, cosine, place in zip(predictions, cosines, places, strict=True)
        ]

    def measured(self, prediction: Prediction) -> Prediction:
        """The whole of it: cosine and place."""
        return prediction

    def read_at(self, backbone: Backbone, row: Row) -> tuple[list[str], list[str]]:
        """The pooled tokens, and how alike the pair is where that is said."""
        pair = row.pair
        marked, _ = super().read_at(backbone, Row(Pair(pair.source, [], pair.marks)))
        return marked, [f"{label:g}" for label in pair.labels]

    def _row(self, model: TunedModel, text: Templates, example: Example) -> Row:
        backbone = model.backbone
        ids, segments, cut = text.read(backbone, example, model.room)
        return self._row_of(backbone, ids, segments, cut)

    def _row_of(
        self, backbone: Backbone, ids: list[int], segments: tuple[int, ...] = (), cut: int = 0
    ) -> Row:
        marks = marks_of(HeadSpec(pooling=self.vector.pooling), backbone, ids)
        return Row(Pair(ids, [], marks, (), segments), cut)

    def _similarity(self, example: Example) -> float:
        similarity = example.number
        if similarity is None:
            raise DataError(f"{example.where}: does not say how alike its texts are")
        if self.vector.loss == "cosine" and not -1 <= similarity <= 1:
            raise DataError(
                f"{example.where}: how alike its texts are is {similarity:g}, but a cosine lies "
                "between -1 and 1; divide the column, or give task.vector.loss: cosent"
            )
        return similarity


def _with(example: Example, column: str, text: str) -> Example:
    fields: Mapping[str, Any] = {**example.fields, column: text}
    return replace(example, fields=fields)
