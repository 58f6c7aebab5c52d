"""What a recipe's first examples become, before anything is trained or written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from foreword.backbone import Backbone, Decoding
from foreword.layout import Pair
from foreword.methods import PET
from foreword.progress import Progress, Silent
from foreword.recipe import Recipe
from foreword.runs.given import as_the_recipe_says
from foreword.runs.pet import Procedure
from foreword.runs.preparing import Prepared, prepare
from foreword.runs.run import recipe_device, train
from foreword.tasks import Chat, Example
from foreword.text import TextTask
from foreword.training.amount import Amount
from foreword.tuned import TunedModel
from foreword.understanding import Cloze, HeadTask, MissingWord, Question, Tagging, text_of
from foreword.understanding.base import Window


@dataclass(frozen=True)
class Row:
    """One row of tokens.

    Attributes:
        tokens: what is read, virtual tokens as `<soft1>`.
        target: what is trained to be written after it.
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
    rows: list[Row]
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


LabelWords = dict[str, dict[str, list[str]]]
"""Label -> its words, each with its tokens."""


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
    if backbone is not None:
        backbone = as_the_recipe_says(backbone, recipe.backbone, device)
    progress = progress or Silent()
    ready = prepare(
        recipe,
        recipe_device(recipe.backbone, device, backbone),
        backbone,
        progress,
        trust_remote_code=trust_remote_code,
    )
    model, task = ready.model, ready.task
    examples, labelled = ready.data.train[:count], True
    if not examples:
        examples, labelled = ready.data.test[:count], False
    counted = model.trained_parameters and not isinstance(recipe.method, PET)
    return Preview(
        ready.plan(recipe),
        model.placement.outside,
        _most(model, task),
        _words(ready.backbone, task),
        [*ready.examples.counted, *ready.notes],
        [_shown(task, model, ready.how, example, labelled) for example in examples],
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
    found = []
    for task, pattern in zip(procedure.tasks(), procedure.method.patterns, strict=True):
        model = procedure.bare(task)
        shown = [_shown(task, model, ready.how, example, labelled=True) for example in examples]
        found.append(
            ShownPattern(
                str(pattern),
                _most(model, task),
                _words(backbone, task),
                task.split_words(backbone),
                shown,
            )
        )
    return found


def _most(model: TunedModel, task: TextTask | HeadTask) -> int | None:
    text = text_of(task)
    chosen = text.max_tokens if text is not None else getattr(task, "max_tokens", None)
    limits = [limit for limit in (model.room(0), chosen) if limit is not None]
    return min(limits, default=None)


def _words(backbone: Backbone, task: TextTask | HeadTask) -> LabelWords:
    if not isinstance(task, Cloze):
        return {}
    names = backbone.tokens.names
    return {
        label: {word: names(part) for word, part in zip(words, parts, strict=True)}
        for label, words, parts in zip(task.labels, task.words, task.tokens(backbone), strict=True)
    }


def _shown(
    task: TextTask | HeadTask, model: TunedModel, how: Decoding, example: Example, labelled: bool
) -> Shown:
    backbone, room = model.backbone, model.room
    text = text_of(task)
    if isinstance(task, TextTask):
        if labelled:
            pairs = [pair for pair, _ in task.pairs(backbone, example, room)]
        else:
            most = how.max_new_tokens
            fitted = task.fit(backbone.tokens, [example], room, reserve=most)
            pairs = [Pair(source) for source in fitted.sources]
        rows = [_written(backbone, pair) for pair in pairs]
    else:
        windows = task.windows(backbone, example, room, labelled=labelled)
        pairs = [window.pair for window in windows]
        rows = [_told(backbone, task, window, labelled) for window in windows]
    cut = 0
    if text is not None and text.cuts:
        whole = _uncut(task, text, backbone, example, labelled)
        cut = max((w - len(p.source) for w, p in zip(whole, pairs, strict=True)), default=0)
    fields = text.cuts if text is not None and cut else ()
    return Shown(example.where, _rendered(backbone, task, example), rows, cut, fields)


def _uncut(
    task: TextTask | HeadTask, text: TextTask, backbone: Backbone, example: Example, labelled: bool
) -> list[int]:
    """How long the same rows are with all of their fields."""
    free = replace(text, max_tokens=None)
    if isinstance(task, HeadTask):
        assert not isinstance(task, Tagging | Question)
        free_task = replace(task, text=free)  # type: ignore[type-var]
        windows = free_task.windows(backbone, example, lambda _: None, labelled=labelled)
        return [len(window.pair.source) for window in windows]
    many = max(1, len(example.references)) if labelled else 1
    return [len(free.source(backbone.tokens, example)[1])] * many


def _written(backbone: Backbone, pair: Pair) -> Row:
    return Row(backbone.tokens.names(pair.source), backbone.tokens.names(pair.target))


def _told(backbone: Backbone, task: HeadTask, window: Window, labelled: bool) -> Row:
    tokens = backbone.tokens.names(window.pair.source)
    marks = [tokens[mark] if mark >= 0 else "<soft1>" for mark in window.pair.marks]
    labels = [int(label) for label in window.pair.labels] if labelled else []
    says: list[str] = []
    if isinstance(task, Question):
        begin, end = labels or [0, 0]
        at = window.pair.marks
        marks = tokens[at[begin] : at[end] + 1] if begin else tokens[:1]
        says = ["the answer begins and ends" if begin else "no answer here"] if labels else []
    elif isinstance(task, MissingWord):
        says = backbone.tokens.names(labels)
    elif labels:
        says = [task.labels[label] for label in labels]
    if not marks:
        marks = tokens[-1:] if backbone.geometry.kind == "decoder" else ["<answer>"]
    return Row(tokens, [], marks, says)


def _rendered(backbone: Backbone, task: TextTask | HeadTask, example: Example) -> str:
    text = text_of(task)
    if text is None:
        shown: Sequence[str] = example.words or ()
        named = (str(example.fields.get(name, "")) for name in ("question", "context"))
        return " ".join(shown) or "\n".join(named)
    if isinstance(text.input, Chat):
        return backbone.tokens.chat(text.input.render(example.fields))
    return "\n".join(template.render(example.fields) for template in text.templates)
