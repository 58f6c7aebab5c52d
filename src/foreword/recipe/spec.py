"""A whole recipe: its sections, and what must hold between them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import (
    Field,
    ValidationInfo,
    field_validator,
)

from foreword import names
from foreword.common.bounds import Seed
from foreword.common.choices import Data
from foreword.errors import TemplateError
from foreword.methods import METHODS, PET, MethodChoice, MethodOptions
from foreword.recipe.backbone import BackboneSpec
from foreword.recipe.data import answer_of, leaves_room
from foreword.recipe.task import TaskSpec
from foreword.recipe.teacher import TeacherSpec
from foreword.recipe.training import DecodingSpec, EvaluationSpec, TrainingSpec, types_rule
from foreword.recipe.vectors import metric_rule
from foreword.recipe.writing import write_yaml
from foreword.templates.template import Template

VERSION = 1


PLAIN = {
    "backbone": "name",
    "method": "name",
    "method.reparameterization": "kind",
    "method.init": "kind",
    "method.delta": "kind",
}
"""Mappings that may be given as a plain text, and the key that the text stands for."""


EXCLUSIVE = (
    ("training.epochs", "training.steps"),
    ("task.data.dev", "task.data.hold_out"),
    ("task.head", "task.verbalizer"),
)
"""Fields of which a recipe gives one."""


def pooling_rule(pooling: Any, method: Any) -> str | None:
    """What is wrong with a head that reads a virtual token of this method, if anything."""
    known = METHODS.get(method) if isinstance(method, str) else None
    if pooling != "prompt" or known is None or known.enters.has_slots:
        return None
    return (
        f"task.head.pooling: `prompt` reads a virtual token in an encoder's input, where {method} "
        "has none; choose first, last or mean"
    )


def section_rules(data: Mapping[str, Any]) -> list[str]:
    """What is wrong between the sections of a recipe, whatever each is by itself."""

    def at(*keys: str) -> Any:
        here: Any = data
        for key in keys:
            here = here.get(key) if isinstance(here, Mapping) else None
        return here

    broken = [
        types_rule(at("backbone", "dtype"), at("training", "precision")),
        pooling_rule(at("task", "head", "pooling"), at("method", "name")),
    ]
    data_section = at("task", "data")
    # What a teacher makes to be measured on is watched, too.
    unwatched = isinstance(data_section, Mapping) and not (
        data_section.get("dev") or data_section.get("hold_out") or data.get("teacher")
    )
    watched = at("training", "best_by")
    if unwatched and watched not in (None, "loss"):
        broken.append(
            f"training.best_by: `{watched}` needs `task.data.dev` or `task.data.hold_out` to "
            "measure on"
        )
    elif isinstance(data_section, Mapping) and isinstance(watched, str):
        answer = answer_of(data_section)
        inputs = at("task", "input"), at("task", "second")
        if answer == "text" and any(map(leaves_room, inputs)):
            answer = "word"
        wrong = names.mismatch(watched, answer, ("loss",)) if watched in names.METRICS else None
        if wrong is None and answer == "vector":
            columns = (data_section.get(name) for name in ("paired", "similarity"))
            wrong = metric_rule(watched, *columns)
        if wrong is not None:
            broken.append(f"training.best_by: {wrong}")
    if unwatched and at("training", "patience") is not None:
        broken.append("training.patience: needs `task.data.dev` or `task.data.hold_out` to watch")
    return [line for line in broken if line]


class Recipe(Data):
    """One run."""

    version: Literal[1]
    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        max_length=100,
        description="letters, digits, '.', '_' and '-', beginning with a letter or a digit",
    )
    backbone: BackboneSpec
    teacher: TeacherSpec | None = None
    task: TaskSpec
    method: MethodChoice
    training: TrainingSpec = TrainingSpec(steps=1000)
    decoding: DecodingSpec = DecodingSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    seed: Seed = 0

    @property
    def files(self) -> dict[str, str]:
        """Key of the recipe -> what a run reads there: data files, files of ids and a teacher's
        texts. Not what training starts from (`method.init`), nor the backbone."""
        taught = {} if self.teacher is None else self.teacher.files
        read = {f"teacher.{key}": path for key, path in taught.items()}
        return read | {f"task.data.{key}": path for key, path in self.task.data.files.items()}

    @property
    def loads(self) -> BackboneSpec:
        """The backbone as a run loads it: `dtype: auto` is float32 where its own weights move. In
        16 bits most of what an optimizer adds to a weight is less than half of what tells two
        neighbouring numbers apart, and lost (Micikevicius et al. 2018, section 3.1)."""
        if self.backbone.dtype != "auto" or not self.method.moves.in_place:
            return self.backbone
        return self.backbone.model_copy(update={"dtype": "float32"})

    @field_validator("backbone", mode="before", json_schema_input_type=BackboneSpec | str)
    @classmethod
    def _plain_backbone(cls, value: Any) -> Any:
        return _spell_out("backbone", value)

    @field_validator("method", mode="before", json_schema_input_type=MethodChoice | str)
    @classmethod
    def _plain_method(cls, value: Any, info: ValidationInfo) -> Any:
        value = _spell_out("method", value)
        if not isinstance(value, Mapping):
            return value
        spelt = {key: _spell_out(f"method.{key}", inner) for key, inner in value.items()}
        soft = task.soft if isinstance(task := info.data.get("task"), TaskSpec) else 0
        return {"length": soft, **spelt} if soft and _has_slots(spelt.get("name")) else spelt

    @field_validator("method")
    @classmethod
    def _learns_what_is_written(cls, method: MethodChoice, info: ValidationInfo) -> MethodChoice:
        teacher, task = info.data.get("teacher"), info.data.get("task")
        if teacher is None or not isinstance(task, TaskSpec):
            return method
        if isinstance(method, PET) or (not method.length and method.moves.kind == "none"):
            raise ValueError(
                f"{method.name} learns nothing of a teacher's text; choose a method that trains "
                "virtual tokens, or weights"
            )
        if task.answer not in ("turns", "text"):
            raise ValueError(
                f"`teacher` teaches what is written, but the task asks for "
                f"{names.ANSWERS[task.answer].title}; leave `task` out, or give one that writes"
            )
        made = task.data.train is None or teacher.conversations is not None
        if made and task.answer != "turns":
            raise ValueError(
                "`teacher` makes conversations: leave `task.data` out, or give `task.data.messages`"
                " for the column that holds them, or `task.data.train` for inputs of another kind"
            )
        if teacher.conversations is not None and task.data.train is not None:
            raise ValueError("give either `teacher.conversations` or `task.data.train`")
        if made and teacher.says("held_out") and (task.data.dev or task.data.hold_out):
            raise ValueError(
                "`teacher.held_out` is of conversations that are made to be measured on, and "
                "`task.data` names others (`dev` or `hold_out`); leave one of them out"
            )
        if task.data.train is not None and (useless := teacher.about_questions):
            raise ValueError(
                f"`teacher` answers the inputs of `task.data.train` and makes no questions, for "
                f"which {', '.join(f'`teacher.{name}`' for name in useless)} would be; leave that "
                "out"
            )
        return method

    @field_validator("method")
    @classmethod
    def _teaches_labels(cls, method: MethodChoice, info: ValidationInfo) -> MethodChoice:
        task = info.data.get("task")
        if not isinstance(method, PET) or not isinstance(task, TaskSpec):
            return method
        if task.answer != "label" or task.verbalizer is not None:
            raise ValueError(
                "pet ends in a classifier with a head: give `task.data.label`, and the label words "
                "as `method.words` instead of `task.verbalizer`"
            )
        if task.windows is not None:
            raise ValueError(
                "pet labels inputs by one reading each: leave `task.windows` out, and name what is "
                "cut with `cut`"
            )
        if task.labels is not None and set(task.labels) != set(method.labels):
            raise ValueError(
                f"`words` has words for {', '.join(method.labels)}, but `task.labels` are "
                f"{', '.join(task.labels)}; name the same, or leave `task.labels` out"
            )
        for pattern in method.patterns:
            try:
                parsed = [Template.parse(text) for text in pattern.texts]
            except TemplateError as error:
                raise ValueError(f"`patterns`: {error}") from error
            if sum(one.mask is not None for one in parsed) != 1 or any(one.soft for one in parsed):
                raise ValueError(
                    f"`patterns`: {str(pattern)!r} needs one {{mask}}, and takes no {{soft}} slots"
                )
        return method

    @field_validator("training")
    @classmethod
    def _masks_beside_words(cls, training: TrainingSpec, info: ValidationInfo) -> TrainingSpec:
        task = info.data.get("task")
        if training.mlm_weight and isinstance(task, TaskSpec) and task.verbalizer is None:
            raise ValueError(
                "`mlm_weight` is of a loss beside that on label words: give `task.verbalizer`, or "
                "leave it out"
            )
        return training

    @field_validator("training")
    @classmethod
    def _rates_of_what_moves(cls, training: TrainingSpec, info: ValidationInfo) -> TrainingSpec:
        task, method = info.data.get("task"), info.data.get("method")
        if training.head_learning_rate and isinstance(task, TaskSpec) and not task.has_head:
            raise ValueError(
                "`head_learning_rate` is of a head, but this task asks for "
                f"{names.ANSWERS[task.answer].title} without one; leave it out"
            )
        still = isinstance(method, MethodOptions) and method.moves.kind == "none"
        if training.delta_learning_rate and still:
            raise ValueError(
                "`delta_learning_rate` is of the backbone's own weights, of which "
                f"{info.data['method'].name} moves none; leave it out, or name a method or "
                "`method.delta` that does"
            )
        return training

    @field_validator("method")
    @classmethod
    def _as_many_as_slots(cls, method: MethodChoice, info: ValidationInfo) -> MethodChoice:
        task = info.data.get("task")
        if not isinstance(task, TaskSpec) or not task.soft:
            return method
        if not _has_slots(method.name):
            raise ValueError(
                f"task.input has {{soft}} slots, but {method.name} puts no virtual tokens into the "
                "text; use p-tuning or prompt-tuning, or leave them out"
            )
        if method.length != task.soft:
            raise ValueError(
                f"`length` is {method.length}, but task.input has {task.soft} {{soft}} slots; "
                "leave `length` out"
            )
        if method.positions != "auto":
            raise ValueError(
                "`positions` has no meaning for virtual tokens inside the text; leave it out"
            )
        return method

    def to_yaml(self) -> str:
        """The whole recipe, every default written out."""
        return write_yaml(self.model_dump(mode="json"))


def _has_slots(method: Any) -> bool:
    """Whether a method's virtual tokens can stand in the text."""
    known = METHODS.get(method) if isinstance(method, str) else None
    return known is not None and known.enters.has_slots


def _spell_out(path: str, value: Any) -> Any:
    return {PLAIN[path]: value} if path in PLAIN and isinstance(value, str) else value
