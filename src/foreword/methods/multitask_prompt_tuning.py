"""Multitask prompt tuning (Wang et al. 2023, "Multitask Prompt Tuning Enables Parameter-Efficient
Transfer Learning").

The prompt of a task is a prompt that all tasks share, multiplied entry by entry by a matrix of low
rank that is the task's own. In the source stage rows of several tasks train all of it together; in
the target stage another task goes on from there. Defaults: those of the authors' example in PEFT
(50 virtual tokens, rank 1, AdamW at 1e-4 with cosine decay after 200 steps, batches of 8, one
epoch); they start from entries of the vocabulary, since the example's text is about its own tasks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from foreword.axes.injection.options import InjectionSpec, injection, known_input
from foreword.errors import UserError, did_you_mean
from foreword.methods import axes
from foreword.methods.axes import InputSites, Positions, TableOnly, VocabularyInit
from foreword.methods.base import MethodOptions, PromptOptions, method
from foreword.methods.choosing import PromptChoice
from foreword.methods.examples import TrainingExamples

if TYPE_CHECKING:
    from foreword.axes.injection.multitask import MultitaskEmbeddings
    from foreword.axes.injection.starts import Start
    from foreword.axes.parts import Named
    from foreword.backbone import Backbone

Rank = Annotated[int, Field(ge=1, le=1024, description="of a task's own matrix")]
Tasks = Annotated[
    tuple[Annotated[str, Field(min_length=1, max_length=1000)], ...],
    Field(
        max_length=1024,
        description="the tasks' names, as rows have them; left out: those of the training rows",
    ),
]


@injection
class Multitask(axes.Embeddings):
    """A shared prompt among the input's embeddings, and a matrix of low rank for each task."""

    kind: ClassVar[str] = "multitask_embeddings"

    rank: Rank = 1
    tasks: Tasks = ()

    @property
    def many(self) -> int:
        """How many tasks there are."""
        return max(1, len(self.tasks))

    def sizes(self, length: int) -> list[tuple[str, int, tuple[str, ...], int]]:
        """Those of the tasks' matrices, too."""
        columns, rows = (".task_columns",), (".task_rows",)
        return [
            *super().sizes(length),
            ("method.length", length, columns, 1),
            ("method.rank", self.rank, columns, 2),
            ("method.rank", self.rank, rows, 1),
            ("the number of method.tasks", self.many, columns, 0),
            ("the number of method.tasks", self.many, rows, 0),
        ]

    def build(
        self, backbone: Backbone, *, stands: Literal["before", "between", "inside"] = "before"
    ) -> MultitaskEmbeddings:
        """In the input of the chosen sites."""
        from foreword.axes.injection.multitask import MultitaskEmbeddings

        sites = known_input(backbone, self.sites, stands)
        return MultitaskEmbeddings(
            backbone, sites, inside=stands == "inside", many=self.many, rank=self.rank
        )


class SourceInit(axes.ArtifactInit):
    """Start from a source artifact: from the prompt that its tasks share, and from their factors
    (Wang et al. 2023, section 3.3)."""

    kind: Literal["artifact"] = "artifact"
    factors: Literal["average", "same", "random"] = Field(
        "average",
        description="average: each task starts from the mean of the artifact's factors; same: the"
        " artifact's tasks go on, each from its own; random: from random numbers",
    )
    task: str | None = Field(
        None, description="the artifact's task whose factors each task starts from, instead"
    )
    known: Tasks = ()

    def named(self, start: Start) -> Named:
        """The shared prompt, and the factors of every task."""
        named = dict(super().named(start))
        for name in [name for name in named if name.endswith((".task_columns", ".task_rows"))]:
            of_tasks = named.pop(name)
            if self.task is not None:
                at = self.known.index(self.task) if self.known else 0
                named[name] = of_tasks[at].expand(start.injection.many, -1, -1)
            elif self.factors == "same":
                named[name] = of_tasks
            elif self.factors == "average":
                named[name] = of_tasks.mean(0).expand(start.injection.many, -1, -1)
        return named


Starts = Annotated[
    axes.UniformInit | VocabularyInit | axes.TextInit | axes.LabelsInit | SourceInit,
    Field(discriminator="kind"),
]


@method
class MultitaskPromptTuning(PromptOptions):
    """Options of multitask prompt tuning."""

    enters: ClassVar[type[InjectionSpec]] = Multitask
    paper: ClassVar[str] = "Wang et al. 2023"
    training_defaults: ClassVar[dict[str, Any]] = {
        "epochs": 1,
        "batch_size": 8,
        "learning_rate": 1e-4,
        "schedule": "cosine",
        "warmup": 200,
        "clip": None,
    }

    name: Literal["multitask-prompt-tuning"]
    length: int = Field(50, ge=1, le=4096, description="virtual tokens")
    rank: Rank = 1
    task_column: str | None = Field(
        None,
        min_length=1,
        max_length=1000,
        description="column that names a row's task; left out: all rows are of one task",
    )
    tasks: Tasks = ()
    positions: Positions = "auto"
    sites: InputSites = None
    reparameterization: TableOnly = axes.Table()
    init: Starts = VocabularyInit()

    @model_validator(mode="after")
    def _tasks_by_a_column(self) -> MultitaskPromptTuning:
        if self.tasks and self.task_column is None:
            raise ValueError("`tasks` are told apart by a column: give `task_column`, too")
        if len(set(self.tasks)) < len(self.tasks):
            raise ValueError("`tasks` names one twice")
        return self

    @property
    def choice(self) -> PromptChoice | None:
        """A row takes the prompt of its task."""
        if self.task_column is None:
            return None
        return PromptChoice(self.task_column, self.tasks)

    def going_on(self, before: MethodOptions) -> MultitaskPromptTuning:
        """The same options with length and rank of a source artifact, unless they say some, and
        with its tasks, where these go on.

        Raises:
            UserError: the artifact is of another method, length or rank, or has no such task.
        """
        if not isinstance(before, MultitaskPromptTuning):
            raise UserError(
                f"is {before.name}, but a target task starts from an artifact of {self.name}"
            )
        stated = self.model_fields_set
        rank = self.rank if "rank" in stated else before.rank
        length = self.length if "length" in stated else before.length
        if (before.length, before.rank) != (length, rank):
            raise UserError(
                f"has a length of {before.length} and a rank of {before.rank}, this run has "
                f"{length} and {rank}; leave method.length and method.rank out"
            )
        init = self.init
        assert isinstance(init, SourceInit), "training goes on from an artifact"
        if init.task is not None and init.task not in before.tasks:
            raise UserError(
                f"has no task {init.task!r} (method.init.task)"
                f"{did_you_mean(init.task, before.tasks)}"
            )
        going = {
            "rank": rank,
            "length": length,
            "init": init.model_copy(update={"known": before.tasks}),
        }
        if init.factors != "same":
            return self.model_copy(update=going)
        named = bool(before.tasks)
        if named != (self.task_column is not None) or self.tasks not in ((), before.tasks):
            raise UserError(
                "method.init.factors: `same` goes on with the artifact's tasks: give its "
                "method.task_column, and leave method.tasks out"
            )
        return self.model_copy(update={**going, "tasks": before.tasks})

    def filled(self, examples: TrainingExamples) -> MultitaskPromptTuning:
        """The same options with the tasks of the training rows, where they name none."""
        if self.task_column is None or self.tasks:
            return self
        return self.model_copy(update={"tasks": examples.values(self.task_column)})
