"""What a recipe with a teacher leaves open, as a backbone settles it: how conversations are
written, what the prompt starts from, and whether both fit."""

from __future__ import annotations

from collections.abc import Callable

from foreword.backbone import Backbone
from foreword.errors import UserError
from foreword.methods import MethodOptions
from foreword.methods.axes import FirstTokensInit
from foreword.procedures.distilling.teacher import Fronts
from foreword.recipe import Recipe, TeacherSpec
from foreword.runs.demonstrations import Shown

PLAIN_END = "\nUser:"
"""Where an answer ends, the teacher's and the prompt's, in the chat template `plain`, of a backbone
that ends no turn by itself."""


def readable(recipe: Recipe, backbone: Backbone, say: Callable[[str], None]) -> Recipe:
    """The recipe with a chat template for conversations, and where answers end in it, where the
    tokenizer has no template."""
    task = recipe.task
    if task.answer != "turns" or task.chat_template or backbone.tokens.tokenizer.chat_template:
        return recipe
    decoding = recipe.decoding
    if not decoding.stop:
        decoding = decoding.model_copy(update={"stop": (PLAIN_END,)})
    say(
        "note: the backbone's tokenizer has no chat template, so conversations are written as "
        "`task.chat_template: plain` has them, the backbone makes the user's part by itself, and "
        f"answers end before {' or '.join(map(repr, decoding.stop))} (decoding.stop)"
    )
    task = task.model_copy(update={"chat_template": "plain"})
    return recipe.model_copy(update={"task": task, "decoding": decoding})


def started(method: MethodOptions, fronts: Fronts, text: str) -> MethodOptions:
    """The method; one that starts from a text's first tokens and names none starts from those with
    which the rows of the teacher of a text begin."""
    init = method.init
    if not isinstance(init, FirstTokensInit) or init.text is not None or init.file is not None:
        return method
    words = fronts.words(text, method.length)
    return method.model_copy(update={"init": init.model_copy(update={"text": words})})


def check_start(method: MethodOptions, shown: Shown) -> None:
    """Make sure that a prompt which starts from a text has something to train, before anything is
    made.

    Raises:
        UserError: all virtual tokens are frozen, or the text has no others.
    """
    if isinstance(method.init, FirstTokensInit):
        method.filled(shown)


def check_room(
    method: MethodOptions, spec: TeacherSpec, backbone: Backbone, *, makes: bool
) -> None:
    """Make sure that the virtual tokens leave room for a question and its answer, before anything
    is made.

    Args:
        method: as `started` gives it.
        spec: the recipe's section.
        backbone: the pretrained one.
        makes: whether questions are made; else inputs are answered, which are as long as they are.

    Raises:
        UserError: they do not.
    """
    context, length = backbone.geometry.context, method.length
    if context is None or getattr(method, "positions", "auto") == "keep":
        return
    if isinstance(method.init, FirstTokensInit):  # as many as the text has
        length = min(length, len(backbone.tokens.document(method.init.words())))
    taken = spec.answer_tokens + (spec.question_tokens if makes else 1)
    most = context - taken
    if length > most:
        mend = f"give at most {most:,}" if most > 0 else "give a smaller teacher.answer_tokens"
        raise UserError(
            f"method.length: {length:,} virtual tokens and {taken:,} tokens of a question and its "
            f"answer are more than the {context:,} positions of '{backbone.name}'; {mend}"
        )
