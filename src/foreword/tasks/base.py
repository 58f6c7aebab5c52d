"""One task object: how an example becomes rows of tokens, and what was read becomes an answer.

A `Task` knows what is asked and no model; `Task.on(model)` binds it to one. Each kind of task is a
file of this package, and nobody outside asks which kind a task is.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Self

from foreword import names
from foreword.axes.readout import Readout
from foreword.backbone import Backbone, Decoding
from foreword.backbone.layout import Pair
from foreword.data import Example
from foreword.errors import DataError, RecipeError, UserError
from foreword.methods.examples import Demonstration
from foreword.recipe import TaskId, TaskSpec
from foreword.tasks.inputs import Inputs
from foreword.tasks.rows import Prediction, Row, by_name
from foreword.tasks.text import Templates
from foreword.tuned import TunedModel

Verb = Literal["generate", "predict", "embed"]
"""The command and the method that a task's answers come from."""
LabelWords = dict[str, dict[str, list[str]]]
"""Label -> its words, each with its tokens."""


AnswerRequests = Callable[..., list[Prediction]]
"""`Task.answer_requests` of one kind."""


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
        requests: Sequence[Request], *, batch_size: int, advance: Callable[[int], None]
    ) -> list[Prediction]:
        """Answer requests of this kind together, in their order; their models may differ."""

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

    def check_verb(self, verb: Verb, who: str) -> None:
        """Raise UserError where answers of `who`, an artifact or a row with its prompt, do not come
        from this command or method."""
        if verb != self.verb:
            raise UserError(f"{who} {self._instead}; use `{self.verb}`")

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


@dataclass(frozen=True, eq=False)
class BoundTask:
    """A task and the model that answers it.

    Attributes:
        task: what is asked.
        model: its backbone makes the tokens, its prompt and context say how many fit.
    """

    task: Task
    model: TunedModel

    def on(self, model: TunedModel) -> BoundTask:
        """The same task, answered by another model."""
        return replace(self, model=model)

    def without_prompt(self) -> BoundTask:
        """The same task, answered by the backbone alone, with a copy of the readout."""
        bare = self.model.bare()
        bare.readout = copy.deepcopy(bare.readout)
        return BoundTask(self.task.without_soft(), bare)

    @property
    def longest_input(self) -> int | None:
        """Most tokens of a row; None: any number."""
        limits = (self.model.room(0), self.task.longest_input)
        return min((limit for limit in limits if limit is not None), default=None)

    def rows(self, example: Example, *, labelled: bool = True, reserve: int = 0) -> list[Row]:
        """An example as rows of tokens, with the prompt that it names; see `Task.rows`."""
        rows = self.task.rows(self.model, example, labelled=labelled, reserve=reserve)
        number = self._prompt_of(example)
        return [replace(row, pair=replace(row.pair, prompt=number)) for row in rows]

    def _prompt_of(self, example: Example) -> int:
        """The number of the prompt that an example takes; DataError where it names none of
        several."""
        choice = self.model.choice
        return 0 if choice is None else choice.number(example.fields, example.where)

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of an example that are read."""
        choice = self.model.choice
        return self.task.fields if choice is None else (*self.task.fields, choice.field)

    def example(self, given: str | Mapping[str, Any], where: str = "") -> Example:
        """An input as an example; see `Task.example`.

        Raises:
            DataError: it lacks what the task asks for, or names no prompt where there are several.
        """
        if self.model.choice is not None and isinstance(given, str):
            raise by_name(where, self.fields)
        example = self.task.example(given, where)
        self._prompt_of(example)
        return example

    def pairs(
        self, examples: Sequence[Example], limit: int | None = None
    ) -> tuple[list[Pair], int]:
        """Rows to train on, up to `limit`, and how many of them were cut to fit."""
        pairs: list[Pair] = []
        truncated = 0
        for example in examples:
            for row in self.rows(example):
                if limit is not None and len(pairs) >= limit:
                    return pairs, truncated
                pairs.append(row.pair)
                truncated += row.cut > 0
        return pairs, truncated

    def check(self, examples: Sequence[Example], how: Decoding) -> None:
        """Make sure that examples can be answered; see `Task.check`."""
        self.task.check(self.model, examples, how)
        for example in examples:
            self._prompt_of(example)

    def answers(
        self,
        examples: Sequence[Example],
        how: Decoding | None = None,
        *,
        batch_size: int = 32,
        seed: int | None = None,
        advance: Callable[[int], None] = lambda _: None,
    ) -> list[Prediction]:
        """The answers to examples, in their order.

        Args:
            examples: their references or labels are not looked at.
            how: decoding, where the answer is a text.
            batch_size: rows that are answered together.
            seed: of the first example's draws, where texts are drawn; the next ones have the next
                numbers. From torch's random state if not given.
            advance: called with the number of examples that are done.

        Raises:
            UserError: an example lacks what the task asks for, or is too long.
        """
        requests = [
            Request(self, example, how or Decoding(), None if seed is None else seed + number)
            for number, example in enumerate(examples)
        ]
        return answer_together(requests, batch_size=batch_size, advance=advance)


@dataclass(frozen=True, eq=False)
class Request:
    """One example that is to be answered.

    Attributes:
        task: what is asked, and of which model; the models of several requests share one backbone.
        example: its references or label are not looked at.
        how: decoding, where the answer is a text.
        seed: of its draws; from torch's random state if not given.
    """

    task: BoundTask
    example: Example
    how: Decoding = field(default_factory=Decoding)
    seed: int | None = None


def answer_together(
    requests: Sequence[Request],
    *,
    batch_size: int = 32,
    advance: Callable[[int], None] = lambda _: None,
) -> list[Prediction]:
    """Answers of any tasks and models of one backbone, in the order of the requests.

    Args:
        requests: what is asked.
        batch_size: rows that are answered together; it changes no answer beyond ties and rounding.
        advance: called with the number of requests that are done.

    Raises:
        UserError: an example lacks what its task asks for, or is too long.
    """
    predictions: dict[int, Prediction] = {}
    alike: dict[AnswerRequests, list[int]] = {}
    for number, request in enumerate(requests):
        alike.setdefault(request.task.task.answer_requests, []).append(number)
    for answer_requests, members in alike.items():
        answered = answer_requests(
            [requests[number] for number in members], batch_size=batch_size, advance=advance
        )
        predictions.update(zip(members, answered, strict=True))
    return [predictions[number] for number in range(len(requests))]
