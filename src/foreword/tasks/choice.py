"""The answer is one of a row's own choices, or some of them: by likelihood, or by a head."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from foreword.axes.readout import ChoiceHead, Head, Likelihood, Readout
from foreword.backbone import Backbone
from foreword.backbone.layout import Pair
from foreword.backbone.text.encoding import with_texts_of
from foreword.data import Example, linearise
from foreword.data.answers import CHOICES, read_choices
from foreword.data.fields import fields_of
from foreword.errors import BackboneError, DataError
from foreword.methods.examples import Demonstration
from foreword.recipe import HeadSpec, TaskId, TaskSpec
from foreword.recipe.task import CHOICE, RIGHT_WRONG
from foreword.scoring.thresholds import USUAL, best_threshold
from foreword.tasks.demonstrating import demonstration, target
from foreword.tasks.head import marks_of, new_head, start_head
from foreword.tasks.reading import ReadTask
from foreword.tasks.rows import Prediction, Row
from foreword.tasks.stating import templates_of
from foreword.tasks.text import Templates, naming
from foreword.tuned import TunedModel

Columns = str | tuple[str, ...]
_USUAL = HeadSpec()


@dataclass(frozen=True)
class Scores:
    """What was read of a row's choices.

    Attributes:
        shares: their probabilities; where one is right, those of all are 1 together.
        log_likelihoods: of their tokens, where these are what is read.
    """

    shares: list[float]
    log_likelihoods: tuple[float, ...] = ()


class ChoiceTask(ReadTask):
    """A task whose answer is among the choices that a row brings along.

    Attributes:
        text: how a row, or a row with one of its choices, becomes text.
        columns: where a row has its choices: a list in one column, or one in each of several.
        several: whether any number of them may be right.
        threshold: from which probability a choice is told then.
    """

    text: Templates
    columns: Columns
    several: bool = False
    threshold: float = USUAL
    labels = ()
    answer = "choice"

    @classmethod
    def of(cls, stated: TaskId) -> ChoiceTask:
        """The task as an artifact states it."""
        kind = ChoiceByHead if stated.has_head else ChoiceByLikelihood
        return kind.of(stated)

    @abstractmethod
    def scores(self, example: Example, rows: Sequence[Row], outputs: Sequence[Tensor]) -> Scores:
        """A score of each choice, from what the readout gave for the rows of an example."""

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields that the templates name, and the columns of the choices."""
        columns = (self.columns,) if isinstance(self.columns, str) else self.columns
        return tuple(dict.fromkeys((*self._slots, *columns)))

    @property
    def _slots(self) -> list[str]:
        return [slot for slot in self.text.slots if slot != CHOICE]

    @property
    def metric_options(self) -> Mapping[str, Any]:
        """Whether several choices may be right."""
        return {"several": self.several}

    def measured(self, prediction: Prediction) -> Prediction:
        """The whole of it: some measures ask for the scores of all choices."""
        return prediction

    def example(self, given: str | Mapping[str, Any], where: str = "") -> Example:
        """A row with its choices as an example."""
        if isinstance(given, str):
            raise DataError(f"{where}: give {', '.join(self.fields)} by name, as JSON")
        _, choices = read_choices(where, self.columns, given)
        for name in self._slots:
            if name in given and given[name] is None:
                raise DataError(f"{where}, field '{name}': is null; expected a text")
        return Example(fields_of(where, given), where=where, choices=choices)

    def input_line(self, example: Example) -> str:
        """What an example asks, without its choices."""
        named = (name for name in self._slots if name in example.fields)
        return " | ".join(linearise(example.fields[name]) for name in named)

    def rendered(self, backbone: Backbone, example: Example) -> str:
        """What a backbone reads of an example, with its first choice where one is read."""
        return super().rendered(backbone, with_choice(example, choices_of(example)[0]))

    def prediction(
        self,
        backbone: Backbone,  # noqa: ARG002
        example: Example,
        rows: Sequence[Row],
        outputs: Sequence[Tensor],
    ) -> Prediction:
        """The choice with the highest score, or those that are likely enough."""
        choices, scores = choices_of(example), self.scores(example, rows, outputs)
        shares = tuple(scores.shares)
        more: dict[str, Any] = {"shares": shares, "log_likelihoods": scores.log_likelihoods}
        if self.several:
            above = tuple(i for i, share in enumerate(shares) if share >= self.threshold)
            answers, sure = tuple(choices[i] for i in above), tuple(shares[i] for i in above)
            return Prediction(answers, sure, chosen=above, **more)
        best = choices.index(choices[max(range(len(shares)), key=shares.__getitem__)])
        return Prediction(choices[best], shares[best], chosen=(best,), **more)

    def settled_on(
        self, spec: TaskSpec, dev: Sequence[Example], answers: Callable[[], list[Prediction]]
    ) -> dict[str, Any]:
        """The threshold, where several choices may be right."""
        if not self.several:
            return {}
        threshold = USUAL
        if isinstance(spec.threshold, float):
            threshold = spec.threshold
        elif dev:
            predictions = answers()
            shares = [share for one in predictions for share in one.shares]
            right = [
                number in (example.right or ())
                for example, one in zip(dev, predictions, strict=True)
                for number in range(len(one.shares))
            ]
            threshold = best_threshold(shares, right)
        return {"thresholds": {RIGHT_WRONG[0]: threshold}}

    def read_at(self, backbone: Backbone, row: Row) -> tuple[list[str], list[str]]:
        """The marked tokens, and whether the choice is right."""
        says = [RIGHT_WRONG[0 if row.pair.labels[1] else 1]] if row.pair.labels else []
        if row.pair.target:
            return [], says
        marked, _ = super().read_at(backbone, Row(Pair(row.pair.source, [], row.pair.marks)))
        return marked, says


@dataclass(frozen=True)
class ChoiceByLikelihood(ChoiceTask):
    """The choice that the backbone finds the likeliest after the input.

    As lm-evaluation-harness has it: a choice is scored by the sum of its tokens' logarithms of
    probability, the end token left out.

    Attributes:
        text: templates of the input, and of a choice after it.
        columns: where a row has its choices.
        normalise: what the sum is divided by.
        objective: whether training weighs the right choice against the others, or makes it likely
            by itself.
    """

    text: Templates
    columns: Columns
    normalise: Literal["none", "tokens", "characters"] = "none"
    objective: Literal["discriminative", "generative"] = "discriminative"

    @classmethod
    def of(cls, stated: TaskId) -> ChoiceByLikelihood:
        """The task as an artifact states it."""
        spec = stated.choice
        columns = stated.choices or CHOICES
        return cls(templates_of(stated), columns, spec.normalise, spec.objective)

    def readout(self, backbone: Backbone) -> Likelihood:
        """The likelihoods of texts.

        Raises:
            BackboneError: the backbone is an encoder, which goes on with no text.
        """
        if backbone.geometry.kind == "encoder":
            raise BackboneError(
                f"backbone: '{backbone.name}' ({backbone.model.config.model_type}) is an encoder, "
                "which has no likelihood of a text; give task.choice.by: head, or "
                "task.verbalizer.words"
            )
        return Likelihood()

    def rows(
        self,
        model: TunedModel,
        example: Example,
        *,
        labelled: bool = True,
        reserve: int = 0,  # noqa: ARG002
    ) -> list[Row]:
        """A row for each choice, all with the same source; to train, one with the others beside it,
        or the right ones alone."""
        tokens, choices = model.backbone.tokens, choices_of(example)
        targets = with_texts_of(
            lambda: [self.text.answer(tokens, example, choice)[:-1] for choice in choices],
            *(partial(self.text.answer, tokens, example, choice) for choice in choices[1:]),
            lambda: self.text.source(tokens, example),
        )
        for choice, ids in zip(choices, targets, strict=True):
            if not ids:
                raise DataError(f"{example.where}: the choice {choice[:60]!r} has no tokens here")
        with naming(example):
            room = model.room(max(map(len, targets)))
        fitted = self.text.fit(tokens, example, room)
        pairs = [Pair(fitted.tokens, ids) for ids in targets]
        if not labelled:
            return [Row(pair, fitted.cut, text=fitted.text) for pair in pairs]
        right = right_of(example)
        if self.objective == "generative":
            return [Row(pairs[number], fitted.cut) for number in right]
        divisors = [self._divisor(*one) for one in zip(choices, targets, strict=True)]
        return [Row(weighed(pairs, right, divisors), fitted.cut)]

    def scores(self, example: Example, rows: Sequence[Row], outputs: Sequence[Tensor]) -> Scores:
        """Shares of the log-likelihoods, divided as the task says."""
        logs = torch.cat(list(outputs)).double()
        divisors = torch.tensor(
            [
                self._divisor(choice, row.pair.target)
                for choice, row in zip(choices_of(example), rows, strict=True)
            ]
        )
        return Scores((logs / divisors).softmax(0).tolist(), tuple(logs.tolist()))

    def demonstration(self, backbone: Backbone, example: Example) -> Demonstration:
        """The input and the right choice."""
        tokens, right = backbone.tokens, choices_of(example)[right_of(example)[0]]
        answer, types = target(self.text, tokens, example, right)
        return demonstration(self.text, tokens, example, answer, types)

    def _divisor(self, choice: str, ids: Sequence[int]) -> int:
        lengths = {"none": 1, "tokens": len(ids), "characters": len(choice)}
        return lengths[self.normalise]


@dataclass(frozen=True)
class ChoiceByHead(ChoiceTask):
    """The choice that a head gives the highest number, reading the input with it.

    Attributes:
        text: templates of the input, which names the choice.
        columns: where a row has its choices.
        head: what the head is made of.
        several: whether any number of choices may be right.
        threshold: from which probability a choice is told then.
    """

    text: Templates
    columns: Columns
    head: HeadSpec = _USUAL
    several: bool = False
    threshold: float = USUAL

    @classmethod
    def of(cls, stated: TaskId) -> ChoiceByHead:
        """The task as an artifact states it."""
        return cls(
            templates_of(stated),
            stated.choices or CHOICES,
            stated.head,
            stated.choice.select == "several",
            stated.thresholds.get(RIGHT_WRONG[0], USUAL),
        )

    def readout(self, backbone: Backbone) -> Head:
        """A head with one output."""
        head = new_head(self.head, ChoiceHead, backbone, 1)
        head.several = self.several
        return head

    def start(self, readout: Readout, backbone: Backbone) -> None:
        """Give a new head the backbone's pooler, where the task asks for it."""
        assert isinstance(readout, Head)
        start_head(self.head, readout, backbone)

    def rows(
        self,
        model: TunedModel,
        example: Example,
        *,
        labelled: bool = True,
        reserve: int = 0,  # noqa: ARG002
    ) -> list[Row]:
        """A row for each choice; to train, one with the others beside it."""
        backbone, rows = model.backbone, []
        for choice in choices_of(example):
            ids, segments, cut = self.text.read(backbone, with_choice(example, choice), model.room)
            marks = marks_of(self.head, backbone, ids)
            rows.append(Row(Pair(ids, [], marks, (), segments), cut))
        if not labelled:
            return rows
        pairs = [row.pair for row in rows]
        right = right_of(example, perhaps_none=self.several)
        asks = len(pairs) if self.several else 1
        pair = weighed(pairs, right, [1] * len(pairs), asks)
        return [Row(pair, max(row.cut for row in rows))]

    def scores(
        self,
        example: Example,  # noqa: ARG002
        rows: Sequence[Row],  # noqa: ARG002
        outputs: Sequence[Tensor],
    ) -> Scores:
        """Shares of all choices, or each one's own probability where several may be right."""
        logits = torch.cat(list(outputs)).double()
        return Scores((logits.sigmoid() if self.several else logits.softmax(0)).tolist())


def choices_of(example: Example) -> tuple[str, ...]:
    """The choices of an example; DataError where it has none."""
    if not example.choices:
        raise DataError(f"{example.where}: has no choices")
    return example.choices


def right_of(example: Example, *, perhaps_none: bool = False) -> tuple[int, ...]:
    """The numbers of its right choices.

    Raises:
        DataError: they are not known, or there are none where one must be.
    """
    if example.right is None or not (example.right or perhaps_none):
        raise DataError(
            f"{example.where}: has no right choice to learn from"
            f"{'' if example.right is None else '; give task.choice.select: several'}"
        )
    return example.right


def with_choice(example: Example, choice: str) -> Example:
    """An example with one of its choices as a field."""
    return replace(example, fields={**example.fields, CHOICE: choice})


def weighed(
    pairs: Sequence[Pair], right: Sequence[int], divisors: Sequence[int], asks: int = 1
) -> Pair:
    """The rows of a question's choices as one pair, a right one first: what stands in its place is
    as it would be learned, where training looks at the pair itself alone.

    Args:
        pairs: a row for each choice.
        right: the numbers of the right ones.
        divisors: what each one's score is divided by.
        asks: how many things are predicted.
    """
    order = sorted(range(len(pairs)), key=lambda number: number not in right)
    rows = [
        replace(pairs[number], labels=(place, int(number in right), divisors[number]))
        for place, number in enumerate(order)
    ]
    return replace(rows[0], beside=tuple(rows[1:]), asks=asks)
