"""What a run folder holds, and whether a run may have a folder. No torch."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from foreword.common import files
from foreword.errors import UserError, argument

RUNS = Path("runs")
RECIPE, LOG, METRICS, ANSWERS, ARTIFACT, CURVE, CONFUSION = (
    "recipe.yaml",
    "log.jsonl",
    "metrics.json",
    "answers.jsonl",
    "artifact",
    "curve.png",
    "confusion.png",
)


def holds_run(folder: Path) -> bool:
    """Whether a run was started in a folder."""
    return (folder / RECIPE).is_file()


def is_finished(folder: Path) -> bool:
    """Whether a run folder has everything: the figures are written last."""
    return (folder / METRICS).exists()


def how_to_go_on(folder: Path) -> str:
    """The command, or the call in Python, that goes on with a run by its own recipe."""
    file = folder / RECIPE
    command = argument(
        f"foreword train {shlex.quote(str(file))} --out {shlex.quote(str(folder))} --resume",
        f"foreword.train({str(file)!r}, out={str(folder)!r}, resume=True)",
    )
    return f"`{command}`"


def refuse_for_new_run(folder: Path) -> None:
    """Make sure that a new run may have a folder.

    Raises:
        UserError: something is there already, or it could not be made or written into.
    """
    refuse_unwritable(folder)
    if holds_run(folder) and not is_finished(folder):
        raise UserError(
            f"{folder}: is there already and is not empty: it holds an unfinished run; go on with "
            f"the run by {argument('--resume', '`resume=True`')}, or name another folder with "
            f"{argument('--out')}"
        )
    files.refuse_occupied(folder)


def refuse_unwritable(folder: Path) -> None:
    """Make sure that a folder is one that can be written into, or could be made.

    Raises:
        UserError: a file is in its way, its name is too long, or writing is not permitted.
    """
    try:
        place = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        is_folder = place.is_dir()
    except OSError as error:
        raise UserError(f"{folder}: cannot be made a folder: {error.strerror}") from error
    if not is_folder:
        raise UserError(
            f"{folder}: cannot be made a folder: {place} is a file; name another folder"
        )
    if not os.access(place, os.W_OK | os.X_OK):
        raise UserError(
            f"{folder}: cannot be written: writing into {place} is not permitted; name another "
            "folder"
        )
