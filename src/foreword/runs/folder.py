"""The run folder: choosing it, claiming it, and reading a finished one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list

from foreword.common import files
from foreword.common.run_files import (
    ANSWERS,
    ARTIFACT,
    CONFUSION,
    CURVE,
    METRICS,
    RECIPE,
    RUNS,
    is_finished,
    refuse_for_new_run,
)
from foreword.data import Example
from foreword.errors import RunError, UserError
from foreword.evaluation import Report
from foreword.evaluation.rows import in_full, right
from foreword.recipe import Recipe
from foreword.recipe.yaml_text import YAML_BYTES
from foreword.runs import resuming
from foreword.runs.finished import read_answers, read_metrics
from foreword.scoring.confusion import confusion_matrix
from foreword.training.hardware import Hardware
from foreword.training.signals import Stopped


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: everything that was written.
        artifact: the trained prompt's folder, inside it.
        recipe: what was run.
        metrics: the content of `metrics.json`.
        samples: `{"input", "output", "reference"}` of a few test examples.
    """

    folder: Path
    artifact: Path
    recipe: Recipe
    metrics: dict[str, Any]
    samples: list[dict[str, str]]


def choose_folder(
    recipe: Recipe, out: Path | None, hardware: Hardware, *, resume: bool = False
) -> Path:
    """The run folder; nothing is made yet.

    A new run has `out`, or `runs/<name>` with a number if that is taken. One that goes on has
    `out`, or the newest unfinished of `runs/<name>`. Every process gets the same answer, or the
    same refusal.

    Raises:
        UserError: `out` is there already and is not empty, or holds a run of another recipe; or
            there is nothing to go on with.
    """
    answer: list[Any] = [None, None]
    if hardware.main:
        try:
            answer[0] = str(_choose(recipe, out, resume))
        except UserError as error:
            answer[1] = str(error)
    if hardware.processes > 1:
        broadcast_object_list(answer)
    if answer[1] is not None:
        raise UserError(answer[1])
    return Path(answer[0])


@contextmanager
def claimed(
    folder: Path, recipe: Recipe, hardware: Hardware, *, resume: bool, numbered: bool = False
) -> Iterator[Path]:
    """Make the run folder, keep other processes out, write the whole recipe into it.

    What another process did to the folder since it was chosen is seen here. A new run that is
    refused in this block leaves nothing behind. Whoever stops the block is told of the folder.

    Args:
        folder: as it was chosen.
        recipe: what is run.
        hardware: every process gets the same folder.
        resume: whether the run in it goes on.
        numbered: take the next free number where another process has the folder by now.

    Raises:
        UserError: it cannot be made, another process writes into it, or has meanwhile.
    """
    if not hardware.main:
        with _told_of(folder := _agreed(folder, hardware)):
            yield folder
        return
    text = recipe.to_yaml()
    if len(text) > YAML_BYTES:
        raise UserError(
            f"{recipe.name}: the recipe with its defaults has {len(text):,} characters, of which "
            f"{YAML_BYTES:,} are read when a run goes on; give labels and texts in data files"
        )
    with ExitStack() as stack:
        folder = _locked(stack, folder, recipe.name if numbered else None)
        if resume:
            resuming.refuse_other_recipe(folder, recipe)
            if is_finished(folder):
                raise UserError(
                    f"{folder}: another process has finished this run meanwhile; the same command "
                    "again shows its results"
                )
            files.sweep(folder, RECIPE, METRICS, ANSWERS, ARTIFACT, CURVE, CONFUSION)
        else:
            files.refuse_occupied(folder)
        new = not (folder / RECIPE).exists()
        if new:
            files.write_text(folder / RECIPE, text)
        _agreed(folder, hardware)
        try:
            with _told_of(folder):
                yield folder
        except UserError:
            if new and [place.name for place in folder.iterdir()] == [RECIPE]:
                (folder / RECIPE).unlink()
                folder.rmdir()
            raise


def _locked(stack: ExitStack, folder: Path, name: str | None) -> Path:
    """Make a folder and lock it until the stack is left; with a run's name, the first that is free.

    Raises:
        UserError: it cannot be made, or another process has it.
    """
    passed_over: set[Path] = set()
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder}: cannot be made a folder: {error.strerror}") from error
        with ExitStack() as attempt:
            try:
                attempt.enter_context(files.locked(folder))
                if name is not None:
                    files.refuse_occupied(folder)
            except files.Occupied:
                if name is None:
                    raise
                passed_over.add(folder)
                folder = _free(name, passed_over)
                continue
            stack.push(attempt.pop_all())
            return folder


def _agreed(folder: Path, hardware: Hardware) -> Path:
    """The main process's folder, in every process; each waits for the others."""
    answer = [str(folder)]
    if hardware.processes > 1:
        broadcast_object_list(answer)
    return Path(answer[0])


@contextmanager
def _told_of(folder: Path) -> Iterator[None]:
    """Whoever stops the block is told which folder goes on."""
    try:
        yield
    except Stopped as stopped:
        stopped.folder = folder
        raise


def read_run(folder: Path, recipe: Recipe) -> Run:
    """A finished run again.

    Raises:
        UserError: its files cannot be read, or do not hold what a run writes.
    """
    metrics = read_metrics(folder)
    samples = _samples(read_answers(folder), recipe)
    return Run(folder, folder / ARTIFACT, recipe, metrics, samples)


def write_answers(
    folder: Path, examples: Sequence[Example], report: Report, recipe: Recipe
) -> list[dict[str, str]]:
    """Write `answers.jsonl`, and which labels were taken for which; returns samples, spread over
    the examples."""
    rows = [
        {
            "input": prediction.input,
            "output": prediction.answer,
            **right(example),
            **({"group": example.group} if example.group else {}),
            **in_full(prediction),
        }
        for prediction, example in zip(report.predictions, examples, strict=True)
    ]
    if examples and all(example.label is not None for example in examples):
        gold = [example.label or "" for example in examples]
        matrix = confusion_matrix(gold, report.answers, recipe.task.labels or ())
        matrix.draw(folder / CONFUSION, recipe.name)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    files.write_text(folder / ANSWERS, text)
    return _samples(rows, recipe)


def remove_artifact(folder: Path) -> None:
    """Make room for the artifact where a run was killed after it had written one."""
    try:
        if (folder / ARTIFACT).exists():
            aside = folder / f".{ARTIFACT}.old"
            shutil.rmtree(aside, ignore_errors=True)
            (folder / ARTIFACT).rename(aside)
            shutil.rmtree(aside)
    except OSError as error:
        raise RunError(f"{folder / ARTIFACT}: cannot be replaced: {error.strerror}") from error


def _choose(recipe: Recipe, out: Path | None, resume: bool) -> Path:
    if resume:
        folder = resuming.newest_unfinished(recipe.name) if out is None else out
        resuming.refuse_other_recipe(folder, recipe)
        return folder
    if out is None:
        return _free(recipe.name)
    refuse_for_new_run(out)
    return out


def _free(name: str, passed_over: Collection[Path] = ()) -> Path:
    base = out = RUNS / name
    number = 1
    while out in passed_over or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        number += 1
        out = base.with_name(f"{name}-{number}")
    return out


def _said(answer: Any, recipe: Recipe) -> str:
    """An answer as text: one of labels or tags, some perhaps none; no span is an answer too."""
    kind = recipe.task.answer
    if kind == "labels":
        return ", ".join(answer) or "(none)"
    if kind == "choice" and not isinstance(answer, str):
        return " | ".join(answer) or "(none)"
    if kind in ("number", "vector"):
        return f"{answer:.4g}"
    if not answer and kind == "span":
        return "(none)"
    return answer if isinstance(answer, str) else " ".join(tag or "(none)" for tag in answer)


def _first(row: dict[str, Any]) -> str:
    """One right answer of a row, as text."""
    if "label" in row:
        return str(row["label"])
    if "labels" in row:
        return ", ".join(row["labels"]) or "(none)"
    if "paired" in row:
        return str((row["paired"] or ["(none)"])[0])
    if "number" in row:
        return f"{row['number']:.4g}"
    if "right" in row:
        return " | ".join(row["choices"][number] for number in row["right"]) or "(none)"
    if "tags" in row:
        return " ".join(row["tags"])
    return str((row["references"] or ["(none)"])[0])


def _samples(rows: list[dict[str, Any]], recipe: Recipe) -> list[dict[str, str]]:
    count = min(recipe.evaluation.samples, len(rows))
    spread = [i * len(rows) // count for i in range(count)]
    return [
        {
            "input": str(rows[i]["input"]).strip(),
            "output": _said(rows[i]["output"], recipe),
            "reference": _first(rows[i]),
        }
        for i in spread
    ]
