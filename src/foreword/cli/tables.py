"""Scores as a table for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from foreword.cli.output import standard_output
from foreword.common.characters import printable
from foreword.names import LOSS, METRICS


def title_of(metric: str) -> str:
    """What a table calls a metric, and whether little of it is good."""
    if metric == LOSS:
        return "dev loss (low is good)"
    known = METRICS.get(metric)
    if known is None:
        return metric
    return f"{known.title} (low is good)" if known.better == "low" else known.title


def figure(metric: str, value: float | None) -> str:
    """A score as a table shows it."""
    decimals = METRICS[metric].decimals if metric in METRICS else 3 if metric == LOSS else 1
    return "–" if value is None else f"{value:.{decimals}f}"


def shorten(text: str, most: int = 300) -> str:
    """A text as an example of many: its beginning, where it is long."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def counted(records: str, cut: int) -> str:
    """What was measured, and of how many records the input was cut to fit."""
    return f"{records}, {f'{cut:,} of them' if cut else 'none'} cut to fit"


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
        table.add_column(title_of(metric), justify="right")
    for subject, groups in subjects.items():
        for i, (group, scores) in enumerate(groups.items()):
            cells = [figure(m, scores.get(m)) for m in metrics]
            table.add_row(subject if i == 0 else "", group, *cells)
        table.add_section()
    return table


def pattern_table(report: Mapping[str, Any]) -> Table:
    """What each model of PET's patterns says of the measured examples, and all together."""
    title = (
        f"taught by {len(report['patterns'])} models, {report['labelled']} labelled and "
        f"{report['unlabelled']} unlabelled examples"
    )
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    for name in ("generation", "pattern"):
        table.add_column(name)
    for name in ("weight", "accuracy %"):
        table.add_column(name, justify="right")
    for row in report["patterns"]:
        cells = f"{row['weight']:.2f}", f"{row['accuracy']:.1f}"
        table.add_row(str(row["generation"]), shorten(row["text"], 60), *cells)
    table.add_section()
    table.add_row("", "all together", "", f"{report['ensemble_accuracy']:.1f}")
    return table


DISTANCES = {
    "student": "the prompt",
    "nothing": "no text",
    "truncated": "the text cut to as many tokens",
    "evicted": "the text's most attended positions",
    "text": "the whole text (the teacher)",
}
"""What is measured of a prompt that learned a text, and beside it."""


def distance_table(report: Mapping[str, Any]) -> Table:
    """How far a prompt that learned a text is from its teacher, and others without training."""
    title = (
        f"{report['held_out']} held-out rows, learned from {report['conversations']}; the text has "
        f"{report['text_tokens']:,} tokens. Nats per token, low is good"
    )
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("before the question")
    for name in ("tokens", "KL to the teacher", "of the answers"):
        table.add_column(name, justify="right")
    for name, shown in DISTANCES.items():
        if name in report:
            one = report[name]
            table.add_row(shown, f"{one['tokens']:,}", f"{one['kl']:.3f}", f"{one['nll']:.3f}")
    return table


class _Console(Console):
    """A console on which no text is markup, and none brings control characters."""

    def __init__(self, width: int | None) -> None:
        super().__init__(width=width, markup=False, emoji=False, highlight=False)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **{**options, "markup": False, "emoji": False})


def print_table(table: Any) -> None:
    """To standard output, as wide as it needs where that is no terminal."""
    with standard_output():
        wide = None if Console().is_terminal else _Console(10_000).measure(table).maximum
        _Console(wide).print(table)
