"""`foreword score`: any outputs against any references, by the E2E challenge's metrics."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foreword.cli import options as o
from foreword.cli.output import emit_json, say
from foreword.data.lines import UTF8
from foreword.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from foreword.scoring import Scores


def score(
    outputs: Annotated[
        Path, typer.Argument(metavar="OUTPUTS", help="Text lines, TSV, CSV or JSONL.")
    ],
    references: Annotated[
        Path | None,
        typer.Argument(
            metavar="REFERENCES",
            help="Text with an empty line between records, TSV, CSV or JSONL. "
            "Not needed where the rows of OUTPUTS hold them.",
            show_default=False,
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            "--metrics",
            metavar="NAME,...",
            help="Of bleu, nist, meteor, rouge_l, cider (these by default), chrf, ter.",
        ),
    ] = None,
    samples: Annotated[
        int,
        typer.Option(
            "--samples", min=0, max=10**6, help="Bootstrap samples for intervals; 0: none."
        ),
    ] = 1000,
    encoding: o.EncodingOption = UTF8,
    seed: o.SeedOption = None,
    as_json: o.JsonOption = False,
) -> None:
    """Score outputs against references as the E2E challenge's official tool does."""
    from foreword import scoring

    names = _names(metrics)
    texts, answers = scoring.read_pairs(outputs, references, encoding=encoding)
    scores = scoring.score(texts, answers, names, samples=samples, seed=seed or 0)
    if as_json:
        drawn = {"samples": samples, "seed": seed or 0, "level": 0.95}
        emit_json({**_figures(scores), "bootstrap": drawn})
        return
    _print(f"{outputs}: {scores.segments} outputs", scores)


def _names(given: str | None) -> list[str]:
    from foreword.scoring import MEASURES, OFFICIAL

    if given is None:
        return list(OFFICIAL)
    names = [name.strip().casefold().replace("-", "_") for name in given.split(",")]
    for name in names:
        if name not in MEASURES:
            raise UserError(f"--metrics: '{name}' is not known{did_you_mean(name, MEASURES)}")
    return names


def _figures(scores: Scores) -> dict[str, object]:
    from foreword.scoring import MEASURES

    def titled(values: dict[str, object]) -> dict[str, object]:
        return {MEASURES[name].title: value for name, value in values.items()}

    return {
        **titled({**scores.values}),
        "intervals": titled({**scores.intervals}),
        "segments": scores.segments,
        "absent": titled({**scores.absent}),
    }


def _print(title: str, scores: Scores) -> None:
    from rich import box
    from rich.table import Table

    from foreword.cli.tables import print_table, title_of

    say(title)
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("", "score", "95 % interval"):
        table.add_column(column, justify="right" if column else "left")
    for name, value in scores.values.items():
        low, high = (f"{end:.4f}" for end in scores.intervals.get(name, (0, 0)))
        between = f"{low} – {high}" if name in scores.intervals else ""
        table.add_row(
            title_of(name),
            f"absent ({scores.absent[name]})" if value is None else f"{value:.4f}",
            between,
        )
    print_table(table)
