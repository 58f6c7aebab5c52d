"""How far prompts that learned a text are from their teacher, beside what needs no training."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from foreword.comparing.measured import Measured
from foreword.names import METRICS

ROWS = {
    "student": "prompt",
    "nothing": "no text",
    "truncated": "text cut to as many tokens",
    "evicted": "most attended positions",
    "text": "whole text",
}
"""What is measured -> the column."""
FIGURES = {"kl": "KL to the teacher", "nll": "nats a token of the answers"}
"""Figure -> what it is, both in nats per predicted token; low is good."""


def distances_of(members: Sequence[Measured]) -> dict[str, dict[str, float]]:
    """The figures of runs that differ in the seed alone, their means; none where a run had no
    teacher."""
    all_figures = [run.metrics.get("teacher", {}) for run in members]
    means: dict[str, dict[str, float]] = {}
    for name in ROWS:
        known = [figures[name] for figures in all_figures if name in figures]
        if len(known) == len(members):
            means[name] = {
                figure: statistics.fmean(one[figure] for one in known) for figure in known[0]
            }
    return means


def scores_of_texts(members: Sequence[Measured]) -> dict[str, dict[str, float]]:
    """By metric the means of the scores with a text before each input: all of it, or cut to as many
    tokens; and those of the prompt. None where a run had no inputs with answers of their own."""
    means: dict[str, dict[str, float]] = {}
    every = [run.metrics.get("teacher", {}).get("scores", {}) for run in members]
    for name in ("truncated", "text"):
        for metric in every[0].get(name, {}):
            values = [known.get(name, {}).get(metric) for known in every]
            if all(value is not None for value in values):
                means.setdefault(metric, {})[name] = statistics.fmean(values)
    for metric, known in means.items():
        own = [value for run in members if (value := run.value(metric)) is not None]
        if len(own) == len(members):
            known["student"] = statistics.fmean(own)
    return means


def distance_tables(content: Mapping[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    """For each figure its title, the columns' titles and a row a method; none where no method had a
    teacher."""
    taught = [method for method in content["methods"] if method.get("teacher")]
    if not taught:
        return []
    names = [name for name in ROWS if any(name in method["teacher"] for method in taught)]
    tables = []
    for figure, title in FIGURES.items():
        rows = []
        for method in taught:
            figures = method["teacher"]
            cells = [f"{figures[n][figure]:.3f}" if n in figures else "–" for n in names]
            rows.append([method["name"], f"{figures['student']['tokens']:.0f}", *cells])
        columns = ["method", "tokens", *(ROWS[name] for name in names)]
        tables.append((f"{title} (low is good)", columns, rows))
    return [*tables, *_score_tables(taught)]


def _score_tables(
    taught: Sequence[Mapping[str, Any]],
) -> list[tuple[str, list[str], list[list[str]]]]:
    """The task's scores beside those with the text before each input."""
    tables = []
    for metric in dict.fromkeys(m for method in taught for m in method["teacher_scores"]):
        known, names = METRICS[metric], ("student", "truncated", "text")
        rows = []
        for method in taught:
            means = method["teacher_scores"].get(metric, {})
            cells = [f"{means[n]:.{known.decimals}f}" if n in means else "–" for n in names]
            rows.append([method["name"], f"{method['teacher']['student']['tokens']:.0f}", *cells])
        low = " (low is good)" if known.better == "low" else ""
        columns = ["method", "tokens", *(ROWS[name] for name in names)]
        tables.append((f"{known.title}, beside the text{low}", columns, rows))
    return tables
