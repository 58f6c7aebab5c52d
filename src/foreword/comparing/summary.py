"""What a comparison says, as plain data: the one content of its JSON, Markdown and HTML."""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from foreword.artifacts.manifest import versions
from foreword.common.run_files import RECIPE
from foreword.comparing.costs import steps_to_share
from foreword.comparing.distances import distances_of, scores_of_texts
from foreword.comparing.executing import Failure
from foreword.comparing.grid import number_of
from foreword.comparing.measured import Measured, scores_of, shared_metrics
from foreword.comparing.statistics import differences, ranks
from foreword.evaluation.rows import right
from foreword.names import METRICS
from foreword.runs.data import without_folders
from foreword.tasks import Prediction

FORMAT = "1.0"
OUTPUTS = 12
"""Test items whose outputs stand side by side."""


def summarise(
    name: str,
    runs: Sequence[Measured],
    *,
    command: str = "",
    x: str | None = None,
    failures: Sequence[Failure] = (),
    warnings: Sequence[str] = (),
) -> dict[str, Any]:
    """All that a report shows.

    Args:
        name: the comparison's.
        runs: finished ones, one at least.
        command: that makes it.
        x: axis of numbers that plots draw on x.
        failures: runs that failed.
        warnings: what else a reader must know, a line each.
    """
    metrics = shared_metrics(runs)
    by_method: dict[str, list[Measured]] = {}
    for run in runs:
        by_method.setdefault(run.method, []).append(run)
    compared = {metric: _compared(runs, metric) for metric in metrics}
    least = _least_a_step(by_method)
    methods = [
        _method(method, members, metrics, compared, least) for method, members in by_method.items()
    ]
    return {
        "format": FORMAT,
        "name": name,
        "command": command,
        "versions": versions(),
        "metrics": [
            {
                "name": metric,
                "title": METRICS[metric].title,
                "better": METRICS[metric].better,
                "decimals": METRICS[metric].decimals,
            }
            for metric in metrics
        ],
        "x": x if x is not None else _numeric_axis(runs),
        "methods": methods,
        "comparisons": {metric: comparison["pairs"] for metric, comparison in compared.items()},
        "sentences": _sentences(metrics, compared),
        "warnings": [*warnings, *_warnings(by_method, metrics, failures)],
        "failures": [{"run": f.place.cell.name, "reason": f.reason} for f in failures],
        "curves": [point for run in runs for point in _curve(run)],
        "mean_curves": [
            {"method": method, **point}
            for method, members in by_method.items()
            for point in _mean_curve(members)
        ],
        "outputs": _outputs(by_method),
        "words": {m: members[0].words for m, members in by_method.items() if members[0].words},
        "provenance": [_provenance(run) for run in runs],
    }


def _compared(runs: Sequence[Measured], metric: str) -> dict[str, Any]:
    scores, known = scores_of(runs, metric), METRICS[metric]
    pairs = differences(scores, known.better)
    count = sum(pair.uncorrected is not None for pair in pairs)
    return {
        "scores": scores,
        "ranks": ranks(scores, known.better) if scores else {},
        "differences": pairs,
        "pairs": [
            {
                "first": pair.first,
                "second": pair.second,
                "difference": pair.value,
                "interval": pair.interval,
                "p": pair.p,
                "uncorrected_p": pair.uncorrected,
                "runs": pair.runs,
                "of_methods": pair.of_methods,
                "winner": pair.winner,
                "sentence": pair.sentence(known.title, max(known.decimals, 1), count),
            }
            for pair in pairs
        ],
    }


def _method(
    method: str,
    members: Sequence[Measured],
    metrics: Sequence[str],
    compared: Mapping[str, Any],
    least_a_step: float | None,
) -> dict[str, Any]:
    first = members[0]
    scores = {}
    for metric in metrics:
        known = compared[metric]["scores"].get(method)
        if known is None:
            continue
        place = compared[metric]["ranks"][method]
        scores[metric] = {
            "mean": known.mean,
            "spread": known.spread,
            "values": known.values.tolist(),
            "rank": place.place,
            "rank_interval": [place.low, place.high],
        }
    return {
        "name": method,
        "choices": dict(first.choices),
        "method": first.recipe.method.name,
        "backbone": first.recipe.backbone.name,
        "length": first.recipe.method.length,
        "training_examples": first.metrics["training"].get("pairs"),
        "seeds": [run.recipe.seed for run in members],
        "scores": scores,
        "groups": _groups(members),
        "cost": _cost(members, least_a_step),
        "teacher": distances_of(members),
        "teacher_scores": scores_of_texts(members),
    }


def _groups(members: Sequence[Measured]) -> dict[str, dict[str, dict[str, float | None]]]:
    """Mean and spread over runs for each group of test items, such as seen and unseen."""
    names = [group for group in members[0].metrics["prompt"] if group != "all"]
    scores: dict[str, dict[str, dict[str, float | None]]] = {}
    for group in names:
        for metric in members[0].metrics["prompt"][group]:
            values = [v for run in members if (v := run.value(metric, group)) is not None]
            if len(values) == len(members):
                scores.setdefault(group, {})[metric] = _mean_and_spread(values)
    return scores


def _mean_and_spread(values: Sequence[float]) -> dict[str, float | None]:
    """As those of scores: the deviation is a sample's, and one run has none."""
    spread = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "spread": spread}


def _seconds_a_step(run: Measured) -> float | None:
    """Of training alone; evaluations are in it where a run did not record what they took."""
    steps = run.metrics["training"].get("steps") or 0
    seconds = run.metrics.get("seconds", {})
    if not steps or seconds.get("train") is None:
        return None
    return max(0.0, float(seconds["train"] - seconds.get("evaluations", 0.0))) / steps


def _least_a_step(by_method: Mapping[str, Sequence[Measured]]) -> float | None:
    known = [
        value
        for members in by_method.values()
        if (value := _mean(map(_seconds_a_step, members))) is not None
    ]
    return min(known, default=None)


def _cost(members: Sequence[Measured], least: float | None) -> dict[str, Any]:
    """What a method takes; seconds a step as a ratio to the fastest method of the comparison."""
    a_step = _mean(map(_seconds_a_step, members))
    peaks = [None if run.cost is None else run.cost.peak_bytes / 2**20 for run in members]
    training = members[0].metrics["training"]
    return {
        "trained_parameters": training.get("trained_parameters"),
        "trained_share": training.get("trained_share"),
        "artifact_kb": _mean(run.metrics["artifact_bytes"] / 1000 for run in members),
        "seconds_a_step_ratio": a_step / least if a_step and least else None,
        "peak_mb": _mean(peaks),
        "tokens_to_95": _mean(map(_tokens_to_share, members)),
    }


def _tokens_to_share(run: Measured) -> float | None:
    """Training tokens until 95 % of the way from the first to the best development score, which is
    what `best_by` names, or the loss."""
    watched = run.recipe.training.best_by or "loss"
    evaluations = [entry.model_dump() for entry in run.evaluations]
    steps = steps_to_share(evaluations, watched)
    tokens = run.metrics["training"].get("tokens_a_pair")
    if steps is None or tokens is None:
        return None
    training = run.recipe.training
    return float(steps * training.batch_size * training.accumulation * tokens)


def _mean(values: Any) -> float | None:
    known = list(values)
    return statistics.fmean(known) if known and all(v is not None for v in known) else None


def _numeric_axis(runs: Sequence[Measured]) -> str | None:
    """The first axis of which all choices are numbers."""
    axes = runs[0].choices
    for axis in axes:
        values = {number_of(run.choices[axis]) for run in runs if axis in run.choices}
        if None not in values and len(values) > 1:
            return axis
    return None


def _sentences(metrics: Sequence[str], compared: Mapping[str, Any]) -> list[str]:
    """The best method against each of the others, in the first metric."""
    if not metrics:
        return []
    places = compared[metrics[0]]["ranks"]
    best = min(places, key=lambda name: places[name].place, default=None)
    return [
        pair["sentence"]
        for pair in compared[metrics[0]]["pairs"]
        if best in (pair["first"], pair["second"])
    ]


def _warnings(
    by_method: Mapping[str, Sequence[Measured]],
    metrics: Sequence[str],
    failures: Sequence[Failure],
) -> list[str]:
    lines = []
    single = [method for method, members in by_method.items() if len(members) == 1]
    if single and len(by_method) > 1:
        named = ", ".join(single[:5]) + (" and others" if len(single) > 5 else "")
        lines.append(
            f"One seed only: {named}. Another seed may turn the order of methods around; give "
            "`seeds: [0, 1, 2]` in the grid."
        )
    counts = {(len(run.answers)) for members in by_method.values() for run in members}
    if len(counts) > 1:
        lines.append(
            "Not all runs answered the same test items, so that only seeds are compared; figures "
            "of different test items say little of each other."
        )
    splits = {run.metrics["split"] for members in by_method.values() for run in members}
    if splits == {"dev"}:
        lines.append(
            "Measured on the development examples, which the runs may have been chosen by; the "
            "last word is a test set's."
        )
    if not metrics:
        lines.append("No metric was measured in all runs.")
    if failures:
        lines.append(f"{len(failures)} of the runs failed; see below.")
    return lines


def _curve(run: Measured) -> list[dict[str, Any]]:
    watched = run.recipe.training.best_by
    return [
        {
            "method": run.method,
            "seed": run.recipe.seed,
            "step": entry.step,
            "loss": entry.loss,
            **({watched: entry.model_dump().get(watched)} if watched not in (None, "loss") else {}),
        }
        for entry in run.evaluations
    ]


def _mean_curve(members: Sequence[Measured]) -> list[dict[str, Any]]:
    """Mean and spread of the development loss over runs, at each step that all of them measured."""
    losses: dict[int, list[float]] = {}
    for run in members:
        for entry in run.evaluations:
            if entry.loss is not None:
                losses.setdefault(entry.step, []).append(entry.loss)
    return [
        {"step": step, **_mean_and_spread(values)}
        for step, values in sorted(losses.items())
        if len(values) == len(members)
    ]


def _outputs(by_method: Mapping[str, Sequence[Measured]]) -> list[dict[str, Any]]:
    """Test items spread over all, with what the first run of each method answered."""
    firsts = {method: members[0] for method, members in by_method.items()}
    counts = {len(run.answers) for run in firsts.values()}
    if len(counts) != 1 or not (count := counts.pop()):
        return []
    run = next(iter(firsts.values()))
    rows = []
    for i in sorted({j * count // OUTPUTS for j in range(min(OUTPUTS, count))}):
        example = run.examples[i]
        rows.append(
            {
                "input": " | ".join(map(_plain, example.fields.values())),
                "right": list(example.references) or [_plain(_first(right(example)))],
                "answers": {method: _plain(one.answers[i]) for method, one in firsts.items()},
            }
        )
    return rows


def _first(row: Mapping[str, Any]) -> Any:
    return next(iter(row.values()))


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Prediction):
        return _plain(value.answer)
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {entry}" for name, entry in value.items())
    if isinstance(value, Sequence):
        return " ".join("–" if entry is None else str(entry) for entry in value)
    return str(value)


def _provenance(run: Measured) -> dict[str, Any]:
    """Where a run's figures come from, by what it recorded itself when it ran."""
    lacks = [what for what in ("data", "versions") if not getattr(run, what)]
    return {
        "method": run.method,
        "seed": run.recipe.seed,
        "run": run.folder.name,
        "data": {
            split: {key: str(file.get(key, "")) for key in ("name", "sha256")}
            for split, file in run.data.items()
        },
        "versions": dict(run.versions),
        "note": f"The run recorded no {' and no '.join(lacks)}." if lacks else "",
        "recipe": without_folders(run.recipe).to_yaml(),
        "command": f"foreword train {shlex.quote(str(run.folder / RECIPE))}",
        "metrics": run.metrics["prompt"].get("all", {}),
    }
