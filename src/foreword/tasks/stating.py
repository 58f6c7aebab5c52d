"""Parts of a task as an artifact states them, checked."""

from __future__ import annotations

from foreword.errors import ArtifactError
from foreword.recipe import TaskId, written_input
from foreword.tasks.text import Templates


def templates_of(stated: TaskId) -> Templates:
    """The templates, parsed.

    Raises:
        TemplateError: they do not parse, or do not go together.
    """
    return Templates.of(
        written_input(stated.input),
        stated.target,
        stated.truncate,
        stated.second,
        stated.max_tokens,
        stated.chat_template,
        stated.chat_options,
    )


def check_windows(stated: TaskId, templates: Templates) -> None:
    """Raise ArtifactError where windows are asked for and no field is named that they are of."""
    if stated.windows is not None and not templates.cuts:
        raise ArtifactError(
            "task.windows: nothing says which field is long; write {text:cut} in task.input, or "
            "name it in task.truncate"
        )


def labels_of(stated: TaskId) -> tuple[str, ...]:
    """The labels.

    Raises:
        ArtifactError: there are fewer than two, or two alike.
    """
    if not 2 <= len(set(stated.labels)) == len(stated.labels):
        raise ArtifactError(
            f"task.labels: {str(list(stated.labels))[:200]}: a head tells at least two labels, and "
            "no two alike"
        )
    return stated.labels


def limited(room: int | None, most: int | None) -> int | None:
    """The smaller of two limits, each None where there is none."""
    return min((limit for limit in (room, most) if limit is not None), default=None)
