"""What a run folder says of its run, finished or not: typed, and derived from its files alone.

Nothing is written for it: the recipe is there from the start, the log grows with every step, a lock
says whether a process is at it, and `metrics.json` comes last.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from foreword.common import files, opening
from foreword.common.bounds import Figure, Many
from foreword.common.json_text import parse_json
from foreword.common.run_files import LOG, RECIPE, holds_run, is_finished
from foreword.errors import UserError
from foreword.recipe import Recipe, load_recipe
from foreword.recipe.problems import explain
from foreword.runs.finished import read_metrics

FORMAT = "1.0"
LOG_BYTES = 2**30
State = Literal["running", "stopped", "finished"]


class Step(BaseModel):
    """One optimizer step; losses in nats per target token, or per label."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    step: Many
    loss: Figure
    learning_rate: Figure


class Evaluation(BaseModel):
    """One evaluation during training; the metric that is watched stands beside the loss."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    step: Many
    loss: Figure | None = None


class RunRecord(BaseModel):
    """A run as it stands.

    Attributes:
        format: version of this record.
        folder: the run folder.
        name: the run's.
        method: the method's name.
        backbone: the backbone's name.
        state: whether a process is at it ("running"), none is and `--resume` goes on ("stopped"),
            or it has everything ("finished").
        step: optimizer steps that are done.
        steps: how many there are to be, where the recipe says so.
        last: the newest step.
        evaluations: those during training.
        metrics: what `metrics.json` holds, once it is finished.
    """

    model_config = ConfigDict(frozen=True)

    format: str = FORMAT
    folder: str
    name: str
    method: str
    backbone: str
    state: State
    step: int = 0
    steps: int | None = None
    last: Step | None = None
    evaluations: tuple[Evaluation, ...] = ()
    metrics: dict[str, Any] | None = None


def read_record(folder: Path | str) -> RunRecord:
    """What a run folder says, while a process writes into it, too.

    Raises:
        UserError: it holds no run, or one of its files is damaged.
    """
    folder = Path(folder)
    if not holds_run(folder):
        raise UserError(f"{folder}: holds no run: there is no {RECIPE} in it")
    recipe: Recipe = load_recipe(folder / RECIPE)
    finished = is_finished(folder)
    last, evaluations = _log(folder)
    return RunRecord(
        folder=str(folder),
        name=recipe.name,
        method=recipe.method.name,
        backbone=recipe.backbone.name,
        state="finished" if finished else "running" if _is_held(folder) else "stopped",
        step=0 if last is None else last.step,
        steps=recipe.training.steps,
        last=last,
        evaluations=evaluations,
        metrics=read_metrics(folder) if finished else None,
    )


def _log(folder: Path) -> tuple[Step | None, tuple[Evaluation, ...]]:
    """The newest step and all evaluations; a line that is being written is left out."""
    file = folder / LOG
    if not file.exists():
        return None, ()
    try:
        text = opening.read_text(file, within=folder, most=LOG_BYTES)
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read: {error}") from error
    last: Step | None = None
    evaluations = []
    for number, line in enumerate(text.split("\n")[:-1], start=1):
        kind: type[Step] | type[Evaluation] = Step
        try:
            entry = parse_json(line)
            if isinstance(entry, dict) and "evaluation" in entry:
                kind, entry = Evaluation, entry["evaluation"]
            read = kind.model_validate(entry)
        except ValidationError as error:
            lines = "; ".join(explain(error, kind, root="the whole"))
            raise UserError(f"{file}, line {number}: is damaged: {lines}") from error
        except ValueError as error:
            raise UserError(f"{file}, line {number}: cannot be read as JSON: {error}") from error
        if isinstance(read, Step):
            last = read
        else:
            evaluations.append(read)
    return last, tuple(evaluations)


def _is_held(folder: Path) -> bool:
    """Whether a process writes into the folder now."""
    try:
        with files.locked(folder):
            return False
    except files.Occupied:
        return True
