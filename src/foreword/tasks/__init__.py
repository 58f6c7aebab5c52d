"""Tasks: a text that is written, turns of a conversation, a label, a tag for each word, a span of a
context, a missing word.

How an example becomes rows of tokens, and how what is written or read becomes an answer: one file
for each kind. `task_of` is the way in from an artifact, and from a recipe through
`foreword.recipe.TaskId`.
"""

from __future__ import annotations

from foreword import names
from foreword.recipe import TaskId
from foreword.tasks.base import BoundTask, LabelWords, Request, Task, answer_together
from foreword.tasks.decoding import Writing, decode_rows, write_rows
from foreword.tasks.label import Classification, Cloze
from foreword.tasks.reading import Answered, Reader, ReadTask
from foreword.tasks.rows import Prediction, Row
from foreword.tasks.span import Question
from foreword.tasks.tags import Tagging
from foreword.tasks.turns import Turns
from foreword.tasks.word import MissingWord
from foreword.tasks.write import TextGeneration

__all__ = [
    "KINDS",
    "Answered",
    "BoundTask",
    "Classification",
    "Cloze",
    "LabelWords",
    "MissingWord",
    "Prediction",
    "Question",
    "ReadTask",
    "Reader",
    "Request",
    "Row",
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
    for kind in (TextGeneration, Turns, Classification, Tagging, Question, MissingWord)
}
"""What is asked -> the kind of task that asks it; label words answer for `Classification`'s head
where a task has them."""


def task_of(stated: TaskId) -> Task:
    """A task as an artifact states it.

    Raises:
        ArtifactError: it has no labels to choose from.
        TemplateError: its templates do not parse, or do not go together.
    """
    kind = Cloze if stated.verbalizer is not None else KINDS[stated.answer]
    return kind.of(stated)
