"""What finished runs reached: their figures, and their answers item by item."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from foreword import names
from foreword.artifacts.manifest import read_manifest
from foreword.common.run_files import ARTIFACT, RECIPE, holds_run, is_finished
from foreword.comparing.costs import Cost, read_cost
from foreword.comparing.items import resampled
from foreword.comparing.statistics import Scores
from foreword.comparing.words import Words, read_words
from foreword.data import Example, read_data
from foreword.errors import ForewordError, UserError
from foreword.evaluation.rows import example_of, prediction_of, right
from foreword.recipe import Recipe, load_recipe
from foreword.runs.finished import read_answers, read_metrics
from foreword.runs.record import Evaluation, read_record
from foreword.tasks import task_of


@dataclass(frozen=True, eq=False)
class Measured:
    """One finished run.

    Attributes:
        method: what runs that differ in the seed alone are called.
        choices: axis -> the choice.
        recipe: what was run.
        folder: the run folder.
        metrics: the content of `metrics.json`.
        answers: one a test item, as metrics take them.
        examples: what was asked and would be right.
        options: what its metrics take beside answers and examples.
        evaluations: during training.
        cost: seconds and memory, where a comparison ran it.
        words: for each virtual token of the input its nearest words, likewise.
        data: name and sha256 of each file that it read, as the run itself recorded them.
        versions: of the packages that it ran with, likewise.
    """

    method: str
    choices: Mapping[str, str]
    recipe: Recipe
    folder: Path
    metrics: Mapping[str, Any]
    answers: Sequence[Any]
    examples: Sequence[Example]
    options: Mapping[str, Any]
    evaluations: Sequence[Evaluation] = ()
    cost: Cost | None = None
    words: Words = field(default_factory=list)
    data: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    _resampled: dict[str, Any] = field(default_factory=dict, repr=False)

    def value(self, metric: str, group: str = "all") -> float | None:
        """A metric on a group of the test items."""
        figure = self.metrics["prompt"].get(group, {}).get(metric)
        return None if figure is None else float(figure)

    def on_resampled_items(self, metric: str) -> Any:
        """A metric on resampled test items, `[samples]`; None where it cannot be computed."""
        value = self.value(metric)
        if metric not in self._resampled:
            self._resampled[metric] = (
                None
                if value is None
                else resampled(metric, self.answers, self.examples, value, self.options)
            )
        return self._resampled[metric]


def read_measured(
    folder: Path, method: str | None = None, choices: Mapping[str, str] | None = None
) -> Measured:
    """A finished run, from its folder.

    Args:
        folder: the run folder.
        method: what it is called; the recipe's method and name if not given.
        choices: axis -> the choice.

    Raises:
        UserError: the folder holds no finished run, or a damaged one.
    """
    if not holds_run(folder):
        raise UserError(f"{folder}: holds no run: there is no {RECIPE} in it")
    if not is_finished(folder):
        raise UserError(f"{folder}: holds a run that has not ended; go on with it, or leave it out")
    recipe = load_recipe(folder / RECIPE)
    rows = read_answers(folder)
    manifest = read_manifest(folder / ARTIFACT)
    task = task_of(manifest.task)
    return Measured(
        method or f"{recipe.name} ({recipe.method.name})",
        choices or {},
        recipe,
        folder,
        read_metrics(folder),
        [task.measured(prediction_of(row)) for row in rows],
        _examples(recipe, rows),
        task.metric_options,
        read_record(folder).evaluations,
        read_cost(folder),
        read_words(folder),
        manifest.data,
        manifest.versions,
    )


def scores_of(runs: Sequence[Measured], metric: str) -> dict[str, Scores]:
    """Method -> its scores; methods of which a run has no value are left out.

    Items are compared only where all runs answered the same ones.
    """
    methods: dict[str, list[Measured]] = {}
    for run in runs:
        methods.setdefault(run.method, []).append(run)
    counts = {len(run.answers) for run in runs}
    same = len(counts) == 1 and len({_asked(run) for run in runs}) == 1
    scores = {}
    for method, members in methods.items():
        values = [run.value(metric) for run in members]
        if any(value is None for value in values):
            continue
        drawn = [run.on_resampled_items(metric) for run in members] if same else []
        rows = [row for row in drawn if row is not None]
        known = same and len(rows) == len(members)
        scores[method] = Scores(
            np.array(values, dtype=np.float64), np.stack(rows) if known else None, max(counts)
        )
    return scores


def shared_metrics(runs: Sequence[Measured]) -> list[str]:
    """Metrics that every run measured, in the order of the first."""
    first, *rest = (run.metrics["prompt"].get("all", {}) for run in runs)
    return [
        name
        for name in first
        if name in names.METRICS and all(name in scores for scores in (first, *rest))
    ]


def _asked(run: Measured) -> int:
    """Tells apart what runs were asked, by what would be right."""
    return hash(json.dumps([right(example) for example in run.examples]))


def _examples(recipe: Recipe, rows: Sequence[Mapping[str, Any]]) -> Sequence[Example]:
    """The test items: from the data file where it still says the same, else from the answers."""
    stated = [example_of(row) for row in rows]
    again = _from_file(recipe)[: len(stated)]
    same = [right(example) for example in again] == [right(example) for example in stated]
    return again if same else stated


def _from_file(recipe: Recipe) -> Sequence[Example]:
    data = recipe.task.data
    split = "test" if data.test else "dev"
    path = data.test or data.dev
    if path is None:
        return []
    options = tuple(sorted((k, v) for k, v in data.options(split).items()))  # type: ignore[arg-type]
    return _read(path, data.format, options)


@lru_cache(maxsize=8)
def _read(path: str, format: str, options: tuple[tuple[str, Any], ...]) -> Sequence[Example]:
    try:
        return read_data(path, format, **dict(options)).examples
    except ForewordError:
        return []
