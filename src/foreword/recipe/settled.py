"""A task whose choices are all settled, as an artifact states it. No torch.

Where a recipe leaves a choice to its data or to a default, `TaskId` has the outcome.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from foreword import names
from foreword.common.bounds import Column, Plain, Tokens
from foreword.data.conversation import Measured
from foreword.recipe.task import HeadSpec, InputSpec, TaskSpec, VerbalizerSpec, written_input
from foreword.templates import fields_asked
from foreword.templates.named import ChatTemplateName


class Part(BaseModel):
    """Frozen; names that a later minor version added are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class TaskId(Part):
    """How an example becomes input, and how data of this task is read and measured."""

    input: InputSpec
    target: str
    truncate: str | None = None
    second: str | None = None
    answer: names.Answer = "text"
    labels: tuple[str, ...] = ()
    head: HeadSpec = HeadSpec()
    verbalizer: VerbalizerSpec | None = None
    max_tokens: Tokens | None = None
    stride: Tokens = 128
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
    chat_options: dict[str, Plain] = {}
    words: Column = 1
    tags: Column | None = None
    group: str | None = None
    metrics: tuple[names.Metric, ...] = ()

    @classmethod
    def of(cls, spec: TaskSpec, **settled: Any) -> TaskId:
        """The task of a recipe.

        Args:
            spec: the recipe's section.
            settled: fields that the recipe leaves to its data, by name: the labels, whether a
                question may have no answer, an input with demonstrations.
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
        return self.verbalizer is None and names.ANSWERS[self.answer].head

    def columns(self) -> dict[str, Any]:
        """What `foreword.data.read_data` is told of a file, beside its path and format."""
        return {name: getattr(self, name) for name in names.COLUMNS}

    def inputs(self) -> tuple[str, ...] | None:
        """The fields that the templates name; None where words, or a context, are what is read."""
        if not names.ANSWERS[self.answer].templates:
            return None
        return fields_asked(written_input(self.input), self.second, self.target)
