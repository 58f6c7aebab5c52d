"""Tasks: what is asked of a backbone, such as a text, a label, or a tag for each word.

How an example becomes rows of tokens, and how what is written or read becomes an answer: one file
for each kind. `task_of` is the way in from an artifact, and from a recipe through
`foreword.recipe.TaskId`.
"""

from __future__ import annotations

from foreword import names
from foreword.errors import ArtifactError
from foreword.recipe import TaskId
from foreword.tasks.base import LabelWords, Task
from foreword.tasks.bound import BoundTask, Request, answer_together
from foreword.tasks.choice import ChoiceTask
from foreword.tasks.choice_words import ChoiceByWords
from foreword.tasks.cloze import Cloze
from foreword.tasks.decoding import Writing, decode_rows, write_rows
from foreword.tasks.label import Classification
from foreword.tasks.labels import SeveralLabels
from foreword.tasks.number import Rating
from foreword.tasks.reading import Answered, Reader, ReadTask
from foreword.tasks.rows import Prediction, Row
from foreword.tasks.span import Question
from foreword.tasks.tags import Tagging
from foreword.tasks.turns import Turns
from foreword.tasks.vector import Embedding
from foreword.tasks.word import MissingWord
from foreword.tasks.write import TextGeneration

__all__ = [
    "BY_WORDS",
    "KINDS",
    "Answered",
    "BoundTask",
    "ChoiceByWords",
    "ChoiceTask",
    "Classification",
    "Cloze",
    "Embedding",
    "LabelWords",
    "MissingWord",
    "Prediction",
    "Question",
    "Rating",
    "ReadTask",
    "Reader",
    "Request",
    "Row",
    "SeveralLabels",
    "Tagging",
    "Task",
    "TextGeneration",
    "Turns",
    "Writing",
    "answer_together",
    "decode_rows",
    "task_of",
    "write_rows",
]

KINDS: dict[names.Answer, type[Task]] = {
    kind.answer: kind
    for kind in (
        TextGeneration,
        Turns,
        Classification,
        SeveralLabels,
        Rating,
        ChoiceTask,
        Tagging,
        Question,
        MissingWord,
        Embedding,
    )
}
"""What is asked -> the kind of task that asks it."""
BY_WORDS: dict[names.Answer, type[Task]] = {"label": Cloze, "choice": ChoiceByWords}
"""The same where label words answer."""


def task_of(stated: TaskId) -> Task:
    """A task as an artifact states it.

    Raises:
        ArtifactError: it has no labels to choose from, or label words where they tell nothing.
        TemplateError: its templates do not parse, or do not go together.
    """
    kinds = KINDS if stated.verbalizer is None else BY_WORDS
    if stated.answer not in kinds:
        raise ArtifactError(
            f"task.verbalizer: label words do not tell {names.ANSWERS[stated.answer].title}"
        )
    return kinds[stated.answer].of(stated)
