"""The answer is any word that is missing in a pattern."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from foreword.axes.readout import AnyWord
from foreword.backbone import Backbone
from foreword.data import Example
from foreword.errors import DataError
from foreword.recipe import TaskId
from foreword.tasks.blanks import Slots
from foreword.tasks.reading import ReadTask
from foreword.tasks.rows import Prediction, Row
from foreword.tasks.stating import templates_of
from foreword.tasks.text import Templates
from foreword.tuned import TunedModel


@dataclass(frozen=True)
class MissingWord(ReadTask):
    """One word of one token, of all there are: a probe for facts (Petroni et al. 2019).

    Attributes:
        text: the pattern, and what gives way where it is too long.
        shown: how many of the most probable words an answer has probabilities of.
    """

    text: Templates
    shown: int = 10
    labels = ()
    answer = "word"

    @classmethod
    def of(cls, stated: TaskId) -> MissingWord:
        """The task as an artifact states it."""
        return cls(templates_of(stated))

    def readout(self, backbone: Backbone) -> AnyWord:
        """The whole vocabulary, where this backbone reads a missing word."""
        slots = Slots.of(backbone, self.text)
        return AnyWord(masked=slots.masked, before=slots.before)

    def rows(
        self,
        model: TunedModel,
        example: Example,
        *,
        labelled: bool = True,
        reserve: int = 0,  # noqa: ARG002
    ) -> list[Row]:
        """One row with one mask."""
        backbone = model.backbone
        slots = Slots.of(backbone, self.text)
        labels: tuple[int, ...] = ()
        if labelled:
            word = example.references[0] if example.references else ""
            labels = tuple(self._ids(backbone, word))
            if len(labels) != 1:
                raise DataError(
                    f"{example.where}: the answer {word!r} is {len(labels)} tokens here, but a "
                    "missing word is one; leave such rows out"
                )
        return [slots.row(model, self.text, example, 1, labels)]

    def prediction(
        self,
        backbone: Backbone,
        example: Example,
        rows: Sequence[Row],  # noqa: ARG002
        outputs: Sequence[Tensor],
    ) -> Prediction:
        """The most probable word, as the example spells it where that is the same token."""
        logs, ids = outputs[0].double().topk(min(self.shown, outputs[0].numel()))
        spelt = {tuple(self._ids(backbone, word)): word for word in example.references}
        words = [
            spelt.get((token,)) or backbone.tokens.tokenizer.decode([token]).strip()
            for token in ids.tolist()
        ]
        probabilities: dict[str, float] = {}
        for word, share in zip(words, logs.exp().tolist(), strict=True):
            probabilities[word] = probabilities.get(word, 0.0) + share
        return Prediction(words[0], probabilities[words[0]], probabilities)

    def read_at(self, backbone: Backbone, row: Row) -> tuple[list[str], list[str]]:
        """The mask, or where the next token is read; and the word there."""
        marked, _ = super().read_at(backbone, replace(row, pair=replace(row.pair, labels=())))
        return marked, backbone.tokens.names([int(label) for label in row.pair.labels])

    def _ids(self, backbone: Backbone, word: str) -> list[int]:
        slots = Slots.of(backbone, self.text)
        return slots.words(backbone.tokens, backbone.geometry.kind, self.text, word)
