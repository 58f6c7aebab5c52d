"""CPT's context: training examples with their answers, as the backbone reads them."""

from __future__ import annotations

from collections.abc import Sequence

from foreword.backbone import Backbone
from foreword.data import Example
from foreword.errors import RecipeError
from foreword.methods import CPT
from foreword.recipe import Recipe
from foreword.runs.demonstrations import balanced
from foreword.tasks import Task
from foreword.tasks.demonstrating import FIXED, LABEL


def with_context(
    recipe: Recipe, task: Task, backbone: Backbone, train: Sequence[Example]
) -> Recipe:
    """The recipe, CPT's context made of its training examples.

    Special tokens before a text stand before the first example alone.

    Raises:
        UserError: there are too few examples, they are too long, or the task has no answer that
            could stand in a text.
    """
    method = recipe.method
    if not isinstance(method, CPT) or method.init.tokens:
        return recipe
    shots = method.init.shots
    if len(train) < shots:
        raise RecipeError(
            "recipe",
            [f"method.init.shots: {shots} are asked for, but there are {len(train)} examples"],
        )
    shown = [
        task.demonstration(backbone, example) for example in balanced(train, shots, recipe.seed)
    ]
    tokens, types = [*shown[0].leading], [FIXED] * len(shown[0].leading)
    for number, one in enumerate(shown):
        tokens += one.tokens
        types += [kind + LABEL * number if kind else FIXED for kind in one.types]
    if len(tokens) > method.length:
        raise RecipeError(
            "recipe",
            [
                f"method.length: {shots} examples have {len(tokens)} tokens, but it allows "
                f"{method.length}; give fewer method.init.shots, a smaller task.max_tokens, or a "
                "larger length"
            ],
        )
    return recipe.model_copy(update={"method": method.around(tokens, types)})
