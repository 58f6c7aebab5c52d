"""The figures and answers of a finished run, read again and checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from foreword.common import opening
from foreword.common.bounds import Figure, Many, Numbers
from foreword.common.json_text import parse_json
from foreword.common.run_files import ANSWERS, METRICS
from foreword.errors import UserError
from foreword.recipe.problems import explain

METRICS_BYTES, ANSWERS_BYTES = 2**28, 2**30
"""Most bytes that are read of `metrics.json`, and of `answers.jsonl`."""
Scores = dict[str, dict[str, Figure | None]]


class _Read(BaseModel):
    """What is shown of a finished run; whatever else a file holds is passed over."""

    # What is shown is the file's own value, so "1" and true are no numbers.
    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, strict=True)


class _Training(_Read):
    trained_parameters: Numbers
    trained_share: Figure | None = None


class _Pattern(_Read):
    generation: Many
    text: str
    weight: Figure
    accuracy: Figure


class _Patterns(_Read):
    patterns: list[_Pattern]
    labelled: Many
    unlabelled: Many
    ensemble_accuracy: Figure


class _Metrics(_Read):
    split: str
    examples: Many
    truncated: Many
    prompt: Scores
    backbone: Scores = {}
    training: _Training
    pet: _Patterns | None = None
    artifact_bytes: Numbers


class _Answer(_Read):
    input: str
    output: str | float | list[str | None]
    label: str = ""
    labels: list[str] = []
    number: Figure = 0.0
    choices: list[str] = []
    right: list[Many] = []
    tags: list[str] = []
    paired: list[str] = []
    references: list[str] = []

    @model_validator(mode="after")
    def _has_what_is_right(self) -> _Answer:
        kinds = {"label", "labels", "number", "right", "tags", "paired", "references"}
        if any(number >= len(self.choices) for number in self.right):
            raise ValueError(
                f"`right` is {self.right}, but there are {len(self.choices)} `choices`"
            )
        if not self.model_fields_set & kinds:
            raise ValueError(f"has none of {', '.join(sorted(kinds))}")
        return self


def read_metrics(folder: Path) -> dict[str, Any]:
    """The content of `metrics.json`.

    Raises:
        UserError: it cannot be read, or lacks what a run writes.
    """
    file = folder / METRICS
    metrics = _parsed(str(file), _read(file, METRICS_BYTES), folder)
    _check(str(file), metrics, _Metrics, folder)
    return dict(metrics)


def read_answers(folder: Path) -> list[dict[str, Any]]:
    """The rows of `answers.jsonl`.

    Raises:
        UserError: it cannot be read, or a row lacks what a run writes.
    """
    file = folder / ANSWERS
    rows = []
    for number, line in enumerate(_read(file, ANSWERS_BYTES).split("\n"), start=1):
        if line:
            where = f"{file}, line {number}"
            row = _parsed(where, line, folder)
            _check(where, row, _Answer, folder)
            rows.append(row)
    return rows


def _read(file: Path, most: int) -> str:
    try:
        return opening.read_text(file, within=file.parent, most=most)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{file}: cannot be read: {reason}; {_again(file.parent)}") from error


def _parsed(where: str, text: str, folder: Path) -> Any:
    try:
        return parse_json(text)
    except ValueError as error:
        raise UserError(f"{where}: cannot be read as JSON: {error}; {_again(folder)}") from error


def _check(where: str, value: Any, model: type[BaseModel], folder: Path) -> None:
    try:
        model.model_validate(value)
    except ValidationError as error:
        lines = [f"  - {line}" for line in explain(error, model, root="the whole")]
        raise UserError("\n".join([f"{where}: is damaged:", *lines, _again(folder)])) from error


def _again(folder: Path) -> str:
    return (
        f"the run in {folder} is finished, and its artifact can be used as it is; name another "
        "folder to run the recipe again"
    )
