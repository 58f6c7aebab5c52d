"""`foreword search`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foreword.cli import options as o
from foreword.cli.comparing import cluster_of
from foreword.cli.output import complain, emit_json, say
from foreword.errors import UserError

if TYPE_CHECKING:
    from foreword.comparing.searching import Search

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def search(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE.yaml", help="What to tune.")],
    budget: Annotated[
        str, typer.Option("--budget", metavar="TIME", help="Time of all runs: 90s, 30m, 2h, 1d.")
    ],
    space: Annotated[
        Path | None,
        typer.Option(
            "--space", metavar="SPACE.yaml", help="What may be chosen; usual if not given."
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            "--metric",
            help="What decides: a metric, or loss for the development loss; the task's first if "
            "not given.",
        ),
    ] = None,
    constraint: Annotated[
        list[str] | None,
        typer.Option("--constraint", metavar="NAME<NUMBER", help="Such as artifact_kb<200."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="key.path=value", help="Override a value in all runs."),
    ] = None,
    runs: Annotated[int | None, typer.Option("--runs", min=1, help="Most runs in all.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder; runs/search-NAME if not given.")
    ] = None,
    on: o.ClusterOption = None,
    shared: o.SharedOption = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, max=1024, help="With --on: runs at a time."),
    ] = None,
    device: Annotated[o.Device | None, typer.Option("--device", help="Where to run.")] = None,
    seed: o.SeedOption = None,
    as_json: o.JsonOption = False,
    plugin: o.PluginOption = None,  # noqa: ARG001
) -> None:
    """Find method and settings by the development examples; the test set is never read."""
    seconds = _seconds(budget)
    cluster = cluster_of(on, shared, workers)
    from foreword.common.progress import PlainLog
    from foreword.comparing.searching import BEST
    from foreword.comparing.searching import search as find
    from foreword.comparing.space import load_space
    from foreword.recipe import load_recipe
    from foreword.runs import Stopped

    checked = load_recipe(recipe, set_ or [], say=complain)
    folder = out or Path("runs") / f"search-{checked.name}"
    try:
        outcome = find(
            recipe,
            budget=seconds,
            out=folder,
            metric=metric,
            space=None if space is None else load_space(space),
            constraints=constraint or [],
            overrides=set_ or [],
            trials=runs,
            seed=seed or 0,
            device=device.value if device else None,
            progress=PlainLog(),
            on=cluster,
        )
    except Stopped as stopped:
        complain(f"foreword: {stopped}; the same command goes on")
        raise typer.Exit(stopped.exit_status) from stopped
    if as_json:
        emit_json(
            {
                "metric": outcome.metric,
                "trials": list(outcome.trials),
                "importances": dict(outcome.importances),
                "within": None if outcome.within is None else asdict(outcome.within),
                "warning": outcome.warning,
            }
        )
    else:
        _print(outcome)
    if outcome.best is None:
        raise UserError("no run ended within the constraints; give a larger --budget, or others")
    if not as_json:
        say(f"the recipe: {folder / BEST}")


def _seconds(text: str) -> float:
    parts = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd])", text.strip())
    if parts is None or float(parts[1]) <= 0:
        raise UserError(f"--budget: {text!r} is no time; give 90s, 30m, 2h or 1d")
    return float(parts[1]) * UNITS[parts[2]]


def _print(outcome: Search) -> None:
    from rich import box
    from rich.table import Table

    from foreword.cli.tables import figure, print_table, shorten, title_of

    table = Table(box=box.SIMPLE_HEAD)
    for title in ("run", title_of(outcome.metric), "artifact kB", "what was chosen", ""):
        table.add_column(title, justify="right" if title == title_of(outcome.metric) else "left")
    for trial in outcome.ranked:
        kilobytes = trial["costs"].get("artifact_kb")
        chosen = ", ".join(f"{key}={value}" for key, value in trial["changes"].items())
        state = "" if trial["state"] == "complete" else trial["state"]
        if trial["reason"]:
            state = f"failed: {shorten(trial['reason'], 200)}"
        if trial["own"]:
            state = ", ".join(["the recipe's own", state] if state else ["the recipe's own"])
        table.add_row(
            str(trial["run"]),
            figure(outcome.metric, trial["value"]),
            "–" if kilobytes is None else f"{kilobytes:,.0f}",
            chosen,
            state if trial["fits"] else "over a constraint",
        )
    print_table(table)
    if outcome.importances:
        say(f"what mattered: {_shares(outcome.importances)}")
    if outcome.within is not None and outcome.within.importances:
        choice = ", ".join(f"{axis} {name}" for axis, name in outcome.within.choice.items())
        say(
            f"what mattered within {choice} ({outcome.within.trials} runs): "
            f"{_shares(outcome.within.importances)}"
        )
    if outcome.warning is not None:
        say(f"note: {outcome.warning}")


def _shares(importances: Mapping[str, float]) -> str:
    """Shares, by the keys of what was chosen: without the choices inside of which it was."""
    return ", ".join(
        f"{name.rpartition('/')[2]} {share:.0%}" for name, share in importances.items()
    )
