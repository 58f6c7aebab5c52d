"""One task object: how an example becomes rows of tokens, and what was read becomes an answer.

A `Task` knows what is asked and no model; `Task.on(model)` binds it to one (`bound.py`). Each kind
of task is a file of this package, and nobody outside asks which kind a task is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Self

from foreword import names
from foreword.axes.readout import Readout
from foreword.backbone import Backbone, Chats, Decoding
from foreword.data import Example
from foreword.errors import DataError, RecipeError, UserError
from foreword.methods.examples import Demonstration
from foreword.names import Together
from foreword.recipe import TaskId, TaskSpec
from foreword.tasks.bound import BoundTask, Request
from foreword.tasks.inputs import Inputs
from foreword.tasks.rows import Prediction, Row
from foreword.tasks.text import Templates
from foreword.templates import Chat
from foreword.tuned import TunedModel

Verb = Literal["generate", "predict", "embed"]
"""The command and the method that a task's answers come from."""
LabelWords = dict[str, dict[str, list[str]]]
"""Label -> its words, each with its tokens."""


class Task(Inputs, ABC):
    """What is asked of a backbone.

    Attributes:
        labels: all labels or tags, in their order; none where the answer is no label.
        text: the templates of the input; None where words, or a question and its context, are read.
        calibrated: whether a prior of the labels is taken off.
    """

    answer: ClassVar[names.Answer]
    verb: ClassVar[Verb] = "predict"
    labels: tuple[str, ...]
    text: Templates | None
    calibrated: bool = False

    @classmethod
    @abstractmethod
    def of(cls, stated: TaskId) -> Self:
        """The task as an artifact states it.

        Raises:
            ArtifactError: the labels, or their words, are none to choose from.
            TemplateError: its templates do not parse, or do not go together.
        """

    @classmethod
    def labels_of(cls, example: Example) -> tuple[str, ...]:  # noqa: ARG003
        """The labels or tags that an example shows."""
        return ()

    @classmethod
    def settled_by(
        cls,
        examples: Sequence[Example],  # noqa: ARG003
        spec: TaskSpec,  # noqa: ARG003
    ) -> dict[str, Any]:
        """Fields of `foreword.recipe.TaskId` that a recipe's section leaves to its training
        examples.

        Raises:
            DataError: they do not settle them.
        """
        return {}

    def settled_on(
        self,
        spec: TaskSpec,  # noqa: ARG002
        dev: Sequence[Example],  # noqa: ARG002
        answers: Callable[[], list[Prediction]],  # noqa: ARG002
    ) -> dict[str, Any]:
        """Fields of `foreword.recipe.TaskId` that are settled by what a trained model answers.

        Args:
            spec: the recipe's section, which says how.
            dev: the development examples; there may be none.
            answers: gives the model's answers to them.
        """
        return {}

    @abstractmethod
    def readout(self, backbone: Backbone) -> Readout:
        """A new readout for a backbone.

        Raises:
            UserError: the backbone cannot answer this task.
        """

    @abstractmethod
    def rows(
        self, model: TunedModel, example: Example, *, labelled: bool = True, reserve: int = 0
    ) -> list[Row]:
        """An example as rows of tokens.

        Args:
            model: whose backbone reads them, and whose context they fit.
            example: with its answers where it is trained on.
            labelled: whether the rows hold what should be answered.
            reserve: tokens that are kept free for an answer that is written.

        Raises:
            DataError: it lacks what the task asks for, has a label that is not known, or is too
                long.
        """

    @staticmethod
    @abstractmethod
    def answer_requests(
        requests: Sequence[Request], *, batch_size: Together, advance: Callable[[int], None]
    ) -> list[Prediction]:
        """Answer requests of this kind together, in their order; their models may differ."""

    def chats(self, backbone: Backbone) -> Chats | None:
        """What renders the messages that a backbone reads; None where the input is one text."""
        if self.text is None or not isinstance(self.text.input, Chat):
            return None
        return self.text.chats(backbone.tokens)

    def bare_answer(self, decoded: str) -> str:
        """The answer in a text that was written: the text as it is."""
        return decoded

    def measured(self, prediction: Prediction) -> Any:
        """What metrics are given of an answer."""
        return prediction.answer

    def compared(
        self,
        predictions: list[Prediction],
        examples: Sequence[Example],  # noqa: ARG002
    ) -> list[Prediction]:
        """The answers to all examples of a set, with what only the set says of them."""
        return predictions

    def of_paired(self) -> Task:
        """The task of the texts that are paired with others.

        Raises:
            UserError: there are none.
        """
        raise UserError(f"asks for {names.ANSWERS[self.answer].title}, and pairs no texts")

    def on(self, model: TunedModel) -> BoundTask:
        """This task, answered by a model."""
        return BoundTask(self, model)

    def start(self, readout: Readout, backbone: Backbone) -> None:
        """Give a new readout what it takes from the backbone before it is trained.

        Raises:
            UserError: the backbone does not have it.
        """

    def notes(self, backbone: Backbone) -> list[str]:  # noqa: ARG002
        """What there is to say of this task on a backbone, a line each."""
        return []

    def label_words(self, backbone: Backbone) -> LabelWords:  # noqa: ARG002
        """The words that stand for the labels, as tokens of a backbone; none where a head answers.

        Raises:
            UserError: the backbone cannot read them.
        """
        return {}

    def demonstration(self, backbone: Backbone, example: Example) -> Demonstration:  # noqa: ARG002
        """An example with its answer as one text.

        Raises:
            UserError: the answer is none that could stand in a text, or the input is too long.
        """
        raise RecipeError(
            "recipe",
            [
                f"task: asks for {names.ANSWERS[self.answer].title}, which is not shown with an "
                "input as one text; give a task that writes a text, or label words "
                "(task.verbalizer)"
            ],
        )

    def check(self, model: TunedModel, examples: Sequence[Example], how: Decoding) -> None:
        """Make sure that examples can be answered.

        Raises:
            UserError: prompt and answer leave nothing for an input, or an example is too long or
                lacks what the task asks for.
        """
        for example in examples:
            self.rows(model, example, labelled=False, reserve=how.max_new_tokens)

    def check_labels(self, examples: Sequence[Example], split: str) -> None:
        """Make sure that the right answers of a split can be given at all.

        Raises:
            RecipeError: no answer could ever be right.
        """

    def check_verb(
        self, verb: Verb, who: str, called: Mapping[Verb, str] = MappingProxyType({})
    ) -> None:
        """Raise UserError where answers of `who`, an artifact or a row with its prompt, do not come
        from this command or method.

        Args:
            verb: the command or method.
            who: whose answers they are.
            called: what the verbs are called where they are asked for by other names.
        """
        if verb != self.verb:
            use = called.get(self.verb, f"`{self.verb}`")
            raise UserError(f"{who} {self._instead}; use {use}")

    @property
    def _instead(self) -> str:
        """What the other verb does not find here."""
        return f"tells {names.ANSWERS[self.answer].title} and writes no text"

    @property
    def class_words(self) -> tuple[str, ...]:
        """The words of the classes: label words, or labels where a head answers."""
        return self.labels

    @property
    def metric_options(self) -> Mapping[str, Any]:
        """What its metrics take beside answers and examples."""
        return {}

    def rows_of_tokens(self, model: TunedModel, tokens: Sequence[int]) -> list[Row]:  # noqa: ARG002
        """Token ids as rows that are answered, read as they are, without the template.

        Raises:
            UserError: this kind of task reads texts alone.
        """
        raise UserError(
            f"asks for {names.ANSWERS[self.answer].title}, and takes no token ids; give a text"
        )

    def of_messages(self, messages: Sequence[Any], where: str = "") -> Example:  # noqa: ARG002
        """Messages as an example, where this is a task of conversations.

        Raises:
            DataError: it is none, or they are no conversation that can be answered.
        """
        raise DataError(f"{where}: expected a text, or named values, found a list")

    def read_at(self, backbone: Backbone, row: Row) -> tuple[list[str], list[str]]:  # noqa: ARG002
        """The tokens at which a row is read, and what is right there where the row is labelled;
        nothing where a text is written."""
        return [], []
