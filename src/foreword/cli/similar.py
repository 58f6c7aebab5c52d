"""`foreword similar`: how alike trained prompts are."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from foreword.cli import options as o
from foreword.cli.output import emit_json


def similar(
    artifacts: Annotated[
        list[Path],
        typer.Argument(metavar="ARTIFACT ARTIFACT...", help="Artifact folders, or run folders."),
    ],
    as_json: o.JsonOption = False,
    plugin: o.PluginOption = None,  # noqa: ARG001
) -> None:
    """Say how alike trained prompts of one backbone are: which task would be a good start for
    another (cosine similarities as in SPoT)."""
    from foreword.artifacts.similarity import similar as compare

    pairs = compare(artifacts)
    if as_json:
        emit_json({"pairs": [asdict(pair) for pair in pairs]})
        return
    from rich import box
    from rich.table import Table

    from foreword.cli.tables import print_table

    table = Table(box=box.SIMPLE_HEAD, title="cosine similarity", title_justify="left")
    table.add_column("prompt", overflow="fold")
    table.add_column("prompt", overflow="fold")
    for measure in ("average tokens", "per token"):
        table.add_column(measure, justify="right", no_wrap=True)
    for pair in pairs:
        figures = f"{pair.average_tokens:.3f}", f"{pair.per_token:.3f}"
        table.add_row(pair.first, pair.second, *figures)
    print_table(table)
