"""Tasks whose answer is written by the backbone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from foreword.axes.readout import Generation
from foreword.backbone import Backbone, Decoding
from foreword.data import Example
from foreword.errors import UserError
from foreword.names import Together
from foreword.tasks.base import Task, Verb
from foreword.tasks.bound import Request
from foreword.tasks.decoding import Writing, decode_rows
from foreword.tasks.rows import Prediction
from foreword.tuned import TunedModel


class WrittenTask(Task):
    """A task that is answered by decoding; without its answer an example is one row."""

    labels = ()
    verb: ClassVar[Verb] = "generate"

    def readout(self, backbone: Backbone) -> Generation:  # noqa: ARG002
        """Decoding."""
        return Generation()

    def check(self, model: TunedModel, examples: Sequence[Example], how: Decoding) -> None:
        """Make sure that examples can be answered.

        Raises:
            UserError: prompt and answer leave nothing for an input, or an example is too long or
                lacks what is asked.
        """
        _check_room(model, how)
        super().check(model, examples, how)

    @staticmethod
    def answer_requests(
        requests: Sequence[Request], *, batch_size: Together, advance: Callable[[int], None]
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
                Writing(
                    request.task.model, row.pair.source, request.how, request.seed, row.pair.prompt
                )
                for request, row in zip(requests, rows, strict=True)
            ],
            batch_size=batch_size,
            advance=advance,
        )
        predictions = []
        for request, row, text in zip(requests, rows, texts, strict=True):
            task = request.task.task
            assert isinstance(task, WrittenTask), "requests of this kind alone come here"
            answer = task.bare_answer(text)
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
