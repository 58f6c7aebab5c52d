"""The answer is a text that the backbone writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from foreword.axes.readout import Generation
from foreword.backbone import Backbone, Decoding
from foreword.backbone.layout import Pair
from foreword.data import Example
from foreword.errors import UserError
from foreword.methods.examples import Demonstration
from foreword.recipe import TaskId
from foreword.tasks.base import Request, Task, Verb
from foreword.tasks.decoding import Writing, decode_rows
from foreword.tasks.demonstrating import demonstration, target
from foreword.tasks.rows import Prediction, Row
from foreword.tasks.stating import templates_of
from foreword.tasks.text import Templates
from foreword.tuned import TunedModel


@dataclass(frozen=True)
class TextGeneration(Task):
    """A text for a text.

    Attributes:
        text: templates of input and answer, and what gives way where an input is too long.
    """

    text: Templates
    labels = ()
    answer = "text"
    verb: ClassVar[Verb] = "generate"

    @classmethod
    def of(cls, stated: TaskId) -> TextGeneration:
        """The task as an artifact states it."""
        return cls(templates_of(stated))

    def readout(self, backbone: Backbone) -> Generation:  # noqa: ARG002
        """Decoding."""
        return Generation()

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

    def demonstration(self, backbone: Backbone, example: Example) -> Demonstration:
        """The input and the first reference."""
        tokens = backbone.tokens
        answer, types = target(self.text, tokens, example, example.references[0])
        return demonstration(self.text, tokens, example, answer, types)

    def check(self, model: TunedModel, examples: Sequence[Example], how: Decoding) -> None:
        """Make sure that examples can be answered.

        Raises:
            UserError: prompt and answer leave nothing for an input, or an example is too long or
                lacks a field.
        """
        _check_room(model, how)
        super().check(model, examples, how)

    @staticmethod
    def answer_requests(
        requests: Sequence[Request], *, batch_size: int, advance: Callable[[int], None]
    ) -> list[Prediction]:
        """Write the answers, all rows through one decoder."""
        rows = []
        for request in requests:
            _check_room(request.task.model, request.how)
            rows += request.task.rows(
                request.example, labelled=False, reserve=request.how.max_new_tokens
            )
        texts = decode_rows(
            [
                Writing(request.task.model, row.pair.source, request.how, request.seed)
                for request, row in zip(requests, rows, strict=True)
            ],
            batch_size=batch_size,
            advance=advance,
        )
        predictions = []
        for request, row, text in zip(requests, rows, texts, strict=True):
            templates = request.task.task.text
            assert templates is not None
            answer = templates.bare_answer(text)
            predictions.append(Prediction(answer, truncated=row.cut > 0, input=row.text))
        return predictions

    @property
    def _instead(self) -> str:
        return "writes texts and has no head"


def _check_room(model: TunedModel, how: Decoding) -> None:
    """Raise UserError where prompt and answer leave nothing for an input."""
    room = model.room(how.max_new_tokens)
    if room is not None and room < 1:
        raise UserError(
            f"decoding.max_new_tokens: {how.max_new_tokens} new tokens leave no room for an input: "
            f"'{model.backbone.name}' has {model.backbone.geometry.context} positions, of which "
            f"method.length {model.placement.length} leaves {model.room(0)} for input and answer; "
            "give a smaller decoding.max_new_tokens or method.length"
        )
