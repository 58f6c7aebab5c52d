"""Tasks whose answer is told, not written: a label for a text, a tag for each word, a span of a
context, a missing word.

How an example becomes tokens with marks and labels, and how what a head or label words say becomes
an answer.
"""

from __future__ import annotations

from dataclasses import replace

from foreword.errors import ArtifactError
from foreword.manifest import TaskId
from foreword.recipe import written_input
from foreword.text import TextTask
from foreword.understanding.base import Answered, HeadOptions, HeadTask, Pooling, Window
from foreword.understanding.cloze import Cloze, MissingWord
from foreword.understanding.heads import Classification, Question, Tagging

__all__ = [
    "Answered",
    "Classification",
    "Cloze",
    "HeadOptions",
    "HeadTask",
    "MissingWord",
    "Pooling",
    "Question",
    "Tagging",
    "Window",
    "class_words",
    "soft_slots",
    "task_of",
    "text_of",
    "without_soft",
]


def soft_slots(task: TextTask | HeadTask) -> int:
    """How many virtual tokens a task's input has slots for."""
    text = text_of(task)
    return 0 if text is None else text.soft


def class_words(task: TextTask | HeadTask) -> tuple[str, ...]:
    """The words of a task's classes: its label words, or its labels where a head tells them."""
    if isinstance(task, TextTask):
        return ()
    return (
        tuple(w for words in task.words for w in words) if isinstance(task, Cloze) else task.labels
    )


def text_of(task: TextTask | HeadTask) -> TextTask | None:
    """The templates of a task; None where words, or a question and its context, are read."""
    if isinstance(task, TextTask):
        return task
    return task.text if isinstance(task, Classification | Cloze | MissingWord) else None


def without_soft(task: TextTask | HeadTask) -> TextTask | HeadTask:
    """The same task for a backbone without a prompt: its input has no slots for one."""
    if isinstance(task, TextTask):
        return task.without_soft()
    if isinstance(task, Classification | Cloze | MissingWord):
        return replace(task, text=task.text.without_soft())
    return task


def task_of(stated: TaskId) -> TextTask | HeadTask:
    """A task as an artifact states it.

    Raises:
        ArtifactError: it has no labels to choose from.
        TemplateError: its templates do not parse, or do not go together.
    """
    known = set(stated.labels)
    if stated.answer in ("label", "tags") and not 2 <= len(known) == len(stated.labels):
        raise ArtifactError(
            f"task.labels: {str(list(stated.labels))[:200]}: a head tells at least two labels, and "
            "no two alike"
        )
    head_spec = stated.head
    head = HeadOptions(head_spec.dropout, head_spec.hidden, head_spec.pooling, head_spec.pooler)
    if stated.answer == "tags":
        return Tagging(stated.labels, head, stated.max_tokens, stated.stride)
    if stated.answer == "span":
        return Question(
            head,
            stated.max_tokens,
            stated.stride,
            stated.longest_answer,
            stated.may_be_none,
            stated.tells_apart,
        )
    text = TextTask.of(
        written_input(stated.input),
        stated.target,
        stated.truncate,
        stated.second,
        stated.max_tokens,
    )
    if stated.answer == "word":
        return MissingWord(text)
    if stated.verbalizer is not None:
        spec = stated.verbalizer
        if set(spec.words) != known:
            raise ArtifactError(
                f"task.verbalizer.words: has words for {str(list(spec.words))[:200]}, but the "
                f"labels are {str(list(stated.labels))[:200]}"
            )
        words = tuple(spec.words[label] for label in stated.labels)
        return Cloze(text, stated.labels, words, spec.order, spec.calibration != "none")
    if stated.answer == "label":
        return Classification(text, stated.labels, head)
    return text
