"""Scores as a table for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

TITLES = {"bleu": "BLEU", "chrf": "chrF", "ter": "TER (low is good)", "slot_coverage": "slots %"}


def score_table(
    title: str, subjects: Mapping[str, Mapping[str, Mapping[str, float | None]]]
) -> Table:
    """A row for each subject and group of examples, a column for each metric.

    Args:
        title: above the table.
        subjects: subject -> group ("all" first) -> metric -> value.
    """
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    metrics = list(
        dict.fromkeys(m for groups in subjects.values() for s in groups.values() for m in s)
    )
    table.add_column("")
    table.add_column("examples")
    for metric in metrics:
        table.add_column(TITLES.get(metric, metric), justify="right")
    for subject, groups in subjects.items():
        for i, (group, scores) in enumerate(groups.items()):
            cells = ["–" if (v := scores.get(m)) is None else f"{v:.1f}" for m in metrics]
            table.add_row(subject if i == 0 else "", group, *cells)
        table.add_section()
    return table


def print_table(table: Any) -> None:
    """To stdout, as wide as it needs where that is no terminal."""
    console = Console()
    Console(width=None if console.is_terminal else 100).print(table)
