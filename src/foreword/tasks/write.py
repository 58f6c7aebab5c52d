"""The answer is a text that the backbone writes."""

from __future__ import annotations

from dataclasses import dataclass

from foreword.backbone import Backbone
from foreword.backbone.layout import Pair
from foreword.data import Example
from foreword.methods.examples import Demonstration
from foreword.recipe import TaskId
from foreword.tasks.demonstrating import demonstration, target
from foreword.tasks.rows import Row
from foreword.tasks.stating import templates_of
from foreword.tasks.text import Templates
from foreword.tasks.writing import WrittenTask
from foreword.tuned import TunedModel


@dataclass(frozen=True)
class TextGeneration(WrittenTask):
    """A text for a text.

    Attributes:
        text: templates of input and answer, and what gives way where an input is too long.
    """

    text: Templates
    answer = "text"

    @classmethod
    def of(cls, stated: TaskId) -> TextGeneration:
        """The task as an artifact states it."""
        return cls(templates_of(stated))

    def rows(
        self, model: TunedModel, example: Example, *, labelled: bool = True, reserve: int = 0
    ) -> list[Row]:
        """A row for each reference of an example; or one, with `reserve` tokens left for its
        answer."""
        tokens = model.backbone.tokens
        if not labelled:
            fitted = self.text.fit(tokens, example, model.room(reserve))
            return [Row(Pair(fitted.tokens), fitted.cut, text=fitted.text)]
        rows = []
        for reference in example.references:
            source, target, cut = self.text.pair(tokens, example, reference, model.room)
            rows.append(Row(Pair(source, target), cut))
        return rows

    def bare_answer(self, decoded: str) -> str:
        """The text without the words that the target template puts around it."""
        return self.text.bare_answer(decoded)

    def demonstration(self, backbone: Backbone, example: Example) -> Demonstration:
        """The input and the first reference."""
        tokens = backbone.tokens
        answer, types = target(self.text, tokens, example, example.references[0])
        return demonstration(self.text, tokens, example, answer, types)
