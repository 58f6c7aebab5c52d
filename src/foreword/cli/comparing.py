"""`foreword compare`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foreword.cli import options as o
from foreword.cli.output import complain, emit_json, say
from foreword.errors import UserError

if TYPE_CHECKING:
    from foreword.cli.live import LiveTable
    from foreword.comparing.cells import Place
    from foreword.comparing.cluster import Cluster
    from foreword.comparing.comparison import Comparison
    from foreword.comparing.executing import Failure

GRIDS = (".yaml", ".yml")


def compare(
    what: Annotated[
        list[Path],
        typer.Argument(metavar="GRID.yaml | RUN…", help="A grid to run, or runs that exist."),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder for runs and report; runs/NAME if not given."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            min=1,
            max=1024,
            help="Runs beside each other, each in a process; as many as pay if not given.",
        ),
    ] = None,
    on: o.ClusterOption = None,
    shared: o.SharedOption = None,
    device: Annotated[o.Device | None, typer.Option("--device", help="Where to run.")] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that comes with a backbone.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Run nothing: show which runs there would be.")
    ] = False,
    as_json: o.JsonOption = False,
    plugin: o.PluginOption = None,  # noqa: ARG001
) -> None:
    """Run a grid of recipes, or take runs that exist, and say what is more than chance."""
    folder: Path | None
    if len(what) == 1 and what[0].suffix in GRIDS:
        if dry_run:
            _show_plan(what[0], out, as_json)
            return
        cluster = cluster_of(on, shared, workers)
        comparison = _run(what[0], out, workers, device, trust_remote_code, cluster)
        folder = comparison.folder
    else:
        wrong = next((file for file in what if file.suffix in GRIDS), None)
        if wrong is not None:
            raise UserError(f"{wrong}: is a grid; give one grid alone, or run folders alone")
        if dry_run or workers is not None or on is not None:
            raise UserError(
                "--dry-run, --workers and --on are for a grid; run folders are only read"
            )
        from foreword.comparing import compare_runs

        comparison, folder = compare_runs(what), out
        if folder is not None:
            comparison.write(folder)
    if as_json:
        emit_json(comparison.content)
    else:
        _print(comparison.content)
        if folder is not None:
            say(f"report: {folder / 'report.html'}, and report.md and report.json beside it")
    if comparison.failures:
        for failure in comparison.failures:
            complain(f"failed: {failure.place.cell.name}: {failure.reason}")
        raise typer.Exit(1)


def cluster_of(on: str | None, shared: str | None, workers: int | None) -> Cluster | None:
    """The cluster that flags name.

    Raises:
        UserError: they name none.
    """
    if on is None:
        if shared is not None:
            raise UserError("--shared is for runs on a cluster; give --on ray://…, too")
        return None
    from foreword.comparing.cluster import Cluster

    return Cluster(on, shared, workers)


def _run(
    grid: Path,
    out: Path | None,
    workers: int | None,
    device: o.Device | None,
    trust_remote_code: bool,
    cluster: Cluster | None,
) -> Comparison:
    from foreword.comparing.comparison import compare as run_grid
    from foreword.runs import Stopped

    watcher = _Lines()
    try:
        return run_grid(
            grid,
            out=out,
            workers=workers,
            device=device.value if device else None,
            watcher=watcher,
            trust_remote_code=trust_remote_code,
            on=cluster,
        )
    except Stopped as stopped:
        complain(f"foreword: {stopped}; what is finished stays, the same command goes on")
        raise typer.Exit(stopped.exit_status) from stopped
    finally:
        watcher.end()


class _Lines:
    """A line on stderr for each run that ends, with the time left; on a terminal also a table of
    all methods that is drawn anew while runs go on."""

    def __init__(self) -> None:
        self.table: LiveTable | None = None

    def planned(self, places: Sequence[Place]) -> None:
        """Say what is there already, and begin to count."""
        from foreword.cli.live import Pace, live_table

        finished = sum(place.state == "finished" for place in places)
        self.pace = Pace(len(places), finished)
        self.table = live_table(places, self.pace)
        if finished:
            complain(f"{finished} of {len(places)} runs are there already")

    def began(self, place: Place) -> None:
        """Show that it runs."""
        assert self.table is not None, "runs were planned"
        self.table.began(place)

    def ended(self, place: Place, failure: Failure | None) -> None:
        """Say it."""
        assert self.table is not None, "runs were planned"
        self.pace.ended()
        how = "failed" if failure is not None else "done"
        self.table.ended(place, failed=failure is not None)
        self.table.say(
            f"{self.pace.finished}/{self.pace.total} {place.cell.name}: {how} [{self.pace}]"
        )

    def end(self) -> None:
        """Leave the table as it is."""
        if self.table is not None:
            self.table.end()


def _show_plan(grid: Path, out: Path | None, as_json: bool) -> None:
    from foreword.comparing import load_grid
    from foreword.comparing.cells import distinct, places_of

    spec, cells = load_grid(grid)
    places = places_of(cells, out or Path("runs") / spec.name)
    if as_json:
        emit_json(
            [
                {
                    "method": place.cell.method,
                    "seed": place.cell.recipe.seed,
                    "state": place.state,
                    "folder": str(place.folder),
                }
                for place in places
            ]
        )
        return
    for place in places:
        say(f"{place.state:9} {place.cell.name}  {place.folder}")
    runs = distinct(places)
    say(f"{len(runs)} runs, {sum(place.state == 'finished' for place in runs)} finished")


def _print(content: Mapping[str, Any]) -> None:
    from rich import box
    from rich.table import Table

    from foreword.cli.tables import print_table
    from foreword.comparing.distances import distance_tables
    from foreword.comparing.markdown import COSTS, cost_rows, shown_rank, shown_score

    table = Table(title=content["name"], box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("method")
    for metric in content["metrics"]:
        low = " (low is good)" if metric["better"] == "low" else ""
        table.add_column(f"{metric['title']}{low}", justify="right")
    for title in ("rank", "seeds"):
        table.add_column(title, justify="right")
    for method in content["methods"]:
        scores = method["scores"]
        cells = [shown_score(scores.get(m["name"]), m["decimals"]) for m in content["metrics"]]
        first = scores.get(content["metrics"][0]["name"]) if content["metrics"] else None
        table.add_row(method["name"], *cells, shown_rank(first), str(len(method["seeds"])))
    print_table(table)
    costs = Table(box=box.SIMPLE_HEAD)
    for title in ("method", *(title for title, _ in COSTS.values())):
        costs.add_column(title, justify="left" if title == "method" else "right")
    for row in cost_rows(content):
        costs.add_row(*row)
    print_table(costs)
    for title, columns, rows in distance_tables(content):
        distances = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
        for column in columns:
            distances.add_column(column, justify="left" if column == "method" else "right")
        for cells in rows:
            distances.add_row(*cells)
        print_table(distances)
    for line in content["sentences"]:
        say(f"- {line}")
    for line in content["warnings"]:
        say(f"warning: {line}")
