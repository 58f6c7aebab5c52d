"""Training examples with their answers: as text before the input (Brown et al. 2020, section 2),
and as tokens for a method that reads them before anything is trained."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from foreword.backbone import Backbone
from foreword.data import Example, linearise
from foreword.errors import DataError, RecipeError
from foreword.methods.examples import Demonstration
from foreword.recipe import InputSpec, MessageSpec, Recipe
from foreword.tasks import Task
from foreword.templates import MaskSlot, Template
from foreword.templates.template import escaped


@dataclass(frozen=True, eq=False)
class Shown:
    """What a method is shown of a run's training examples (`methods.examples.TrainingExamples`).

    Attributes:
        task: turns an example into tokens.
        backbone: whose tokens they are.
        examples: the training examples.
        seed: decides which of them are shown.
        limit: how many of them are trained on, from the first; None: all.
    """

    task: Task
    backbone: Backbone
    examples: Sequence[Example]
    seed: int
    limit: int | None = None

    def values(self, field: str) -> tuple[str, ...]:
        """What stands in a field of the examples that are trained on; see the protocol."""
        names = set()
        for example in self.examples[: self.limit]:
            if field not in example.fields:
                raise DataError(
                    f"{example.where}: has no field '{field}', which names the prompt that a row "
                    "takes"
                )
            names.add(linearise(example.fields[field]))
        return tuple(sorted(names))

    def document(self, text: str) -> list[int]:
        """A text as tokens; see the protocol."""
        return self.backbone.tokens.document(text)

    def demonstrations(self, count: int, field: str) -> list[Demonstration]:
        """Some examples with their answers, as tokens; see the protocol."""
        chosen = balanced(self.examples, count, self.seed, field)
        return [self.task.demonstration(self.backbone, example) for example in chosen]


def shown_first(recipe: Recipe, train: Sequence[Example]) -> InputSpec:
    """The recipe's input, the examples that the method shows in its text before it.

    They are words of the template then: no truncation cuts them, and an artifact keeps them.

    Raises:
        RecipeError: there are too few training examples, or no place for them.
    """
    shown, task = recipe.method.in_text, recipe.task
    if shown is None:
        return task.input
    if task.second is not None:
        raise RecipeError(
            "recipe",
            ["method.shots: has no place beside task.second; put both texts into task.input"],
        )
    chosen = balanced(train, shown.shots, recipe.seed, "method.shots")
    if not isinstance(task.input, str):
        *before, last = task.input
        turns = [turn for example in chosen for turn in _turns(recipe, last, example)]
        return (*before, *turns, last)
    text = "".join(_shown(recipe, task.input, example) + shown.separator for example in chosen)
    return escaped(text) + task.input


def balanced(train: Sequence[Example], shots: int, seed: int, field: str) -> list[Example]:
    """Some examples in random order; where there are labels, each has its turn.

    Raises:
        RecipeError: there are fewer than `field` asks for.
    """
    if len(train) < shots:
        raise RecipeError(
            "recipe", [f"{field}: {shots} are asked for, but there are {len(train)} examples"]
        )
    rng = random.Random(f"{seed}/shots")
    order = rng.sample(range(len(train)), len(train))
    by_label: dict[str | None, list[int]] = {}
    for number in order:
        by_label.setdefault(train[number].label, []).append(number)
    turns = sorted(by_label, key=str)
    taken: list[int] = []
    while len(taken) < shots:
        taken += [by_label[label].pop(0) for label in turns if by_label[label]]
    taken = taken[:shots]
    rng.shuffle(taken)
    return [train[number] for number in taken]


def _shown(recipe: Recipe, template: str, example: Example) -> str:
    """An example as the backbone would have read it and answered."""
    task = recipe.task
    parsed = Template.parse(template)
    word = _word(recipe, example) if parsed.mask or task.verbalizer else None
    text = ""
    for part in parsed.fill(example.fields):
        if isinstance(part, MaskSlot):
            text += f" {word}" if part.spaced else str(word)
        else:
            assert isinstance(part, str)
            text += part
    if parsed.mask:
        return text
    if word is not None:
        return text + ("" if text[-1:].isspace() else " ") + word
    answer = Template.parse(task.target)
    return text + answer.render({**example.fields, "reference": example.references[0]})


def _word(recipe: Recipe, example: Example) -> str:
    verbalizer = recipe.task.verbalizer
    if verbalizer is None:
        return example.references[0]
    if example.label not in verbalizer.words:
        raise RecipeError(
            "recipe",
            [f"task.verbalizer.words: has no word for the label {example.label!r} of the data"],
        )
    return verbalizer.words[example.label][0]


def _turns(recipe: Recipe, last: MessageSpec, example: Example) -> tuple[MessageSpec, MessageSpec]:
    question = Template.parse(last.content).render(example.fields)
    answer = Template.parse(recipe.task.target)
    answered = answer.render({**example.fields, "reference": example.references[0]})
    return (
        MessageSpec(role=last.role, content=escaped(question)),
        MessageSpec(role="assistant", content=escaped(answered)),
    )
