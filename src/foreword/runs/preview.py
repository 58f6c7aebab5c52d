"""What a recipe's first examples become, before anything is trained or written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from foreword.artifacts.starting import settled
from foreword.backbone import Backbone
from foreword.common.progress import Progress, Silent
from foreword.data import Example
from foreword.errors import UserError, argument
from foreword.methods import PET
from foreword.procedures.pet import Procedure
from foreword.recipe import Recipe
from foreword.runs.given import as_the_recipe_says
from foreword.runs.preparing import Prepared, prepare
from foreword.runs.run import recipe_device, train
from foreword.tasks import BoundTask, LabelWords, Row
from foreword.training.amount import Amount


@dataclass(frozen=True)
class ShownRow:
    """One row of tokens.

    Attributes:
        tokens: what is read, virtual tokens as `<soft1>`; of several turns all of the row.
        target: what is trained to be written after it, or in it.
        read_at: the tokens at which a head or a mask is read; those of the answer's words, of tags.
        says: what should be said there.
    """

    tokens: list[str]
    target: list[str] = field(default_factory=list)
    read_at: list[str] = field(default_factory=list)
    says: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Shown:
    """An example.

    Attributes:
        where: file and line.
        text: as the template renders it, slots visible.
        rows: it as tokens; several where a context is read in windows, or has several answers.
        cut: how many tokens of it were left out, and of which fields, the first first.
    """

    where: str
    text: str
    rows: list[ShownRow]
    cut: int = 0
    cut_fields: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The same as plain data."""
        return {
            "where": self.where,
            "text": self.text,
            "rows": [
                {
                    "tokens": row.tokens,
                    **({"target": row.target} if row.target else {}),
                    **({"read_at": row.read_at} if row.read_at else {}),
                    **({"says": row.says} if row.says else {}),
                }
                for row in self.rows
            ],
            "tokens_cut": self.cut,
            "cut_in": list(self.cut_fields),
        }


@dataclass(frozen=True)
class ShownPattern:
    """One of PET's patterns, as the models that are tuned with it read it.

    Attributes:
        template: it as the recipe has it.
        most: the longest input in tokens; None: any.
        words: as they would stand in it.
        notes: of words that are split or not known.
        examples: the first ones.
    """

    template: str
    most: int | None
    words: LabelWords
    notes: list[str]
    examples: list[Shown]

    def as_json(self) -> dict[str, Any]:
        """The same as plain data."""
        return {
            "pattern": self.template,
            "most_tokens": self.most,
            "label_words": self.words,
            "notes": self.notes,
            "examples": [shown.as_json() for shown in self.examples],
        }


@dataclass(frozen=True)
class Preview:
    """What a run would begin with.

    Attributes:
        plan: what would be trained, in a line.
        in_front: virtual tokens that stand in no text.
        most: the longest input in tokens; None: any.
        words: of each label the words, each with its tokens.
        notes: what there is to say of data, label words and settings.
        examples: the first ones.
        patterns: PET's; the examples are then the classifier's.
        amount: of the training; None where nothing is trained, and for PET, whose classifier learns
            from rows that are not known yet.
    """

    plan: str
    in_front: int
    most: int | None
    words: LabelWords
    notes: list[str]
    examples: list[Shown]
    patterns: list[ShownPattern] = field(default_factory=list)
    amount: Amount | None = None

    def as_json(self) -> dict[str, Any]:
        """The same as plain data."""
        return {
            "plan": self.plan,
            **({"training": self.amount.as_json()} if self.amount is not None else {}),
            "virtual_tokens_in_front": self.in_front,
            "most_tokens": self.most,
            **({"label_words": self.words} if self.words else {}),
            "notes": self.notes,
            **(
                {"patterns": [pattern.as_json() for pattern in self.patterns]}
                if self.patterns
                else {}
            ),
            "examples": [shown.as_json() for shown in self.examples],
        }


def preview(
    recipe: Recipe,
    *,
    count: int = 3,
    device: str | None = None,
    backbone: Backbone | None = None,
    progress: Progress | None = None,
    trust_remote_code: bool = False,
) -> Preview:
    """Read a recipe, its files and its backbone, and show the first examples as tokens.

    Args:
        recipe: what would be run. Where it trains nothing, the examples are those it measures.
        count: how many examples.
        device: "cpu", "cuda" or "mps"; the best there is if not given.
        backbone: the recipe's, loaded already.
        progress: told about the stages.
        trust_remote_code: run code that comes with the backbone.

    Raises:
        UserError: what `train` would refuse too.
    """
    if recipe.teacher is not None:
        raise UserError(
            f"{argument('--dry-run', 'preview')}: what a teacher writes is not known before it has "
            "read its text; run the recipe with a small teacher.made, such as 8, and look at the "
            "conversations below study/ in its folder"
        )
    if backbone is not None:
        backbone = as_the_recipe_says(backbone, recipe.backbone, device)
    recipe = recipe.model_copy(update={"method": settled(recipe.method)})
    progress = progress or Silent()
    ready = prepare(
        recipe,
        recipe_device(recipe.backbone, device, backbone),
        backbone,
        progress,
        trust_remote_code=trust_remote_code,
    )
    model, task = ready.model, ready.task
    reserve = ready.how.max_new_tokens
    examples, labelled = ready.data.train[:count], True
    if not examples:
        examples, labelled = ready.data.test[:count], False
    counted = model.trained_parameters and not isinstance(recipe.method, PET)
    return Preview(
        ready.plan(),
        model.placement.outside,
        task.longest_input,
        task.task.label_words(ready.backbone),
        [*ready.examples.counted, *ready.notes],
        [_shown(task, example, labelled, reserve) for example in examples],
        _patterns(recipe, ready, examples, progress) if isinstance(recipe.method, PET) else [],
        Amount.of(recipe.training, ready.data.pairs) if counted and ready.data.pairs else None,
    )


def _patterns(
    recipe: Recipe, ready: Prepared, examples: Sequence[Example], progress: Progress
) -> list[ShownPattern]:
    """The patterns, checked as the procedure checks them before it trains."""
    backbone = ready.backbone
    procedure = Procedure(
        recipe, Path(), ready.stated.labels, ready.examples, backbone, progress, train
    )
    patterns = []
    for task, pattern in zip(procedure.tasks(), procedure.method.patterns, strict=True):
        bare = procedure.bare(task)
        patterns.append(
            ShownPattern(
                str(pattern),
                bare.longest_input,
                task.label_words(backbone),
                task.notes(backbone),
                [_shown(bare, example, labelled=True) for example in examples],
            )
        )
    return patterns


def _shown(task: BoundTask, example: Example, labelled: bool, reserve: int = 0) -> Shown:
    rows = task.rows(example, labelled=labelled, reserve=reserve)
    cut = max((row.cut for row in rows), default=0)
    return Shown(
        example.where,
        task.task.rendered(task.model.backbone, example),
        [_as_tokens(task, replace(row, pair=pair)) for row in rows for pair in row.pair.rows],
        cut,
        task.task.cut_fields if cut else (),
    )


def _as_tokens(task: BoundTask, row: Row) -> ShownRow:
    backbone = task.model.backbone
    read_at, says = task.task.read_at(backbone, row)
    named = backbone.tokens.names
    pair = row.pair
    tokens = [*pair.source, *(pair.target if pair.between else ())]
    return ShownRow(named(tokens), named(pair.predicted), read_at, says)
