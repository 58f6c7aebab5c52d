"""A task whose choices are all settled, as an artifact states it. No torch.

Where a recipe leaves a choice to its data or to a default, `TaskId` has the outcome.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from foreword import names
from foreword.common.bounds import Column, Deviation, Figure, Setting, Share, Tokens
from foreword.data.answers import RIGHT
from foreword.data.conversation import Measured
from foreword.recipe.data import ChoiceColumns
from foreword.recipe.heads import HeadSpec
from foreword.recipe.task import (
    CHOICE,
    ChoiceSpec,
    InputSpec,
    TaskSpec,
    VerbalizerSpec,
    WindowPool,
    answers_by_head,
    written_input,
)
from foreword.recipe.vectors import VectorSpec
from foreword.templates import fields_asked
from foreword.templates.named import ChatTemplateName


class Part(BaseModel):
    """Frozen; names that a later minor version added are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class TaskId(Part):
    """How an example becomes input, and how data of this task is read and measured.

    `thresholds` has for each label the probability from which it is told, where it may be told
    beside others; for choices of which several may be right, that of `right`. A number that a head
    tells counts as so many times `deviation` from `mean`.
    """

    input: InputSpec
    target: str
    truncate: str | None = None
    second: str | None = None
    answer: names.Answer = "text"
    labels: tuple[str, ...] = ()
    thresholds: dict[str, Share] = Field(default_factory=dict)
    mean: Figure = 0.0
    deviation: Deviation = 1.0
    head: HeadSpec = HeadSpec()
    choice: ChoiceSpec = ChoiceSpec()
    verbalizer: VerbalizerSpec | None = None
    max_tokens: Tokens | None = None
    stride: Tokens = 128
    windows: WindowPool | None = None
    longest_answer: Tokens = 30
    may_be_none: bool = False
    tells_apart: bool = True
    format: names.Format = "jsonl"
    references: str = "references"
    label: str | None = None
    messages: str | None = None
    tools: str | None = None
    measured: Measured = "last"
    chat_template: ChatTemplateName | None = None
    chat_options: dict[str, Setting] = {}
    label_list: str | None = None
    separator: str | None = None
    number: str | None = None
    choices: ChoiceColumns | None = None
    paired: str | None = None
    similarity: str | None = None
    vector: VectorSpec = VectorSpec()
    right: str = RIGHT
    words: Column = 1
    tags: Column | None = None
    group: str | None = None
    metrics: tuple[names.Metric, ...] = ()

    @classmethod
    def of(cls, spec: TaskSpec, **settled: Any) -> TaskId:
        """The task of a recipe.

        Args:
            spec: the recipe's section.
            settled: fields that the recipe leaves to its data, by name: the labels, from which
                probability each is told, whether a question may have no answer, an input with
                demonstrations.
        """
        stated = {
            name: getattr(section, name)
            for section in (spec, spec.data)
            for name in type(section).model_fields
            if name in cls.model_fields
        }
        return cls(**{**stated, "answer": spec.answer, "metrics": spec.measured, **settled})

    @property
    def has_head(self) -> bool:
        """Whether a trained layer answers."""
        return answers_by_head(self.answer, self.verbalizer, self.choice)

    def columns(self) -> dict[str, Any]:
        """What `foreword.data.read_data` is told of a file, beside its path and format."""
        return {name: getattr(self, name) for name in names.COLUMNS}

    def inputs(self) -> tuple[str, ...] | None:
        """The fields that the templates name; None where words, or a context, are what is read."""
        if not names.ANSWERS[self.answer].templates:
            return None
        second = None if names.ANSWERS[self.answer].apart else self.second
        asked_for = fields_asked(written_input(self.input), second, self.target)
        return tuple(name for name in asked_for if self.answer != "choice" or name != CHOICE)
