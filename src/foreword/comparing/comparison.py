"""A comparison: from a grid, or from runs that exist, to what its report shows."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from foreword.common import files
from foreword.common.progress import Progress, Silent
from foreword.comparing.cells import Place, distinct, places_of, write_plan
from foreword.comparing.cluster import Cluster, execute_on
from foreword.comparing.executing import Failure, Loaded, Watcher, execute
from foreword.comparing.grid import load_grid
from foreword.comparing.measured import Measured, read_measured
from foreword.comparing.page import check_installed, write_page
from foreword.comparing.summary import summarise
from foreword.errors import RunError, UserError, refuse_single

JSON, MARKDOWN, HTML = "report.json", "report.md", "report.html"


@dataclass(frozen=True)
class Comparison:
    """What came of many runs.

    Attributes:
        content: all that a report shows, as plain data.
        failures: runs that failed.
        folder: where runs and report are; None where runs that exist were read.
    """

    content: dict[str, Any]
    failures: Sequence[Failure] = ()
    folder: Path | None = None

    def markdown(self) -> str:
        """The report as Markdown."""
        from foreword.comparing.markdown import write_markdown

        return write_markdown(self.content)

    def html(self) -> str:
        """The report as one HTML page that loads nothing."""
        return write_page(self.content)

    def write(self, folder: Path | str) -> None:
        """Write `report.json`, `report.md` and `report.html` into a folder."""
        folder = Path(folder)
        page, text = self.html(), self.markdown()
        folder.mkdir(parents=True, exist_ok=True)
        data = json.dumps(self.content, indent=2, ensure_ascii=False) + "\n"
        for name, content in ((JSON, data), (MARKDOWN, text), (HTML, page)):
            files.write_text(folder / name, content)


class Unwatched:
    """A watcher that says a line for each run."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def planned(self, places: Sequence[Place]) -> None:
        """Begin the stage."""
        done = sum(place.state == "finished" for place in places)
        self.progress.begin("runs", len(places), done)

    def began(self, place: Place) -> None:
        """Nothing."""

    def ended(self, place: Place, failure: Failure | None) -> None:
        """A line."""
        reason = f" failed: {failure.reason}" if failure is not None else ""
        self.progress.say(f"{place.cell.name}:{reason or ' done'}")
        self.progress.advance()


def compare(
    grid: Path | str,
    *,
    out: Path | str | None = None,
    workers: int | None = None,
    device: str | None = None,
    watcher: Watcher | None = None,
    progress: Progress | None = None,
    trust_remote_code: bool = False,
    on: Cluster | None = None,
) -> Comparison:
    """Run what a grid names and is not there yet, and compare all of it.

    Args:
        grid: a YAML file, see `foreword.comparing.grid`.
        out: folder for the runs and the report; `runs/<name>` if not given. Runs that are there
            already and are decided by the same recipe, data and code are not run again.
        workers: processes beside each other; as many as pay if not given.
        device: "cpu", "cuda" or "mps"; the best there is if not given.
        watcher: told of every run.
        progress: told how many are done, where there is no watcher.
        trust_remote_code: run code that comes with a backbone.
        on: a Ray cluster, in place of processes of this machine.

    Raises:
        UserError: the grid, a recipe that comes of it or a data file is wrong, or what a
            comparison needs is not installed.
        RunError: no run could be finished.
        Stopped: Ctrl-C or SIGTERM; the same call goes on.
    """
    check_installed()
    spec, cells = load_grid(grid)
    folder = Path("runs") / spec.name if out is None else Path(out)
    places = places_of(cells, folder)
    write_plan(folder, spec.name, places)
    watcher = watcher or Unwatched(progress or Silent())
    watcher.planned(distinct(places))
    if on is None:
        loaded = Loaded(device, trust_remote_code=trust_remote_code)
        failures = execute(places, watcher=watcher, loaded=loaded, workers=workers)
    else:
        failures = execute_on(
            replace(on, workers=on.workers or workers),
            places,
            folder,
            watcher=watcher,
            device=device,
            trust_remote_code=trust_remote_code,
        )
    lost = {failure.place.folder: failure.reason for failure in failures}
    failures = [Failure(place, lost[place.folder]) for place in places if place.folder in lost]
    if len(failures) == len(places):
        raise RunError(f"{grid}: all {len(places)} runs failed; the first: {failures[0].reason}")
    runs = [
        read_measured(place.folder, place.cell.method, place.cell.choices)
        for place in places
        if place.folder not in lost
    ]
    command = f"foreword compare {shlex.quote(Path(grid).name)}"
    comparison = Comparison(
        summarise(spec.name, runs, command=command, x=spec.x, failures=failures), failures, folder
    )
    comparison.write(folder)
    return comparison


def compare_runs(folders: Sequence[Path | str]) -> Comparison:
    """Compare runs that exist.

    Runs that differ in the seed alone are one method's. Of runs of one recipe and one seed, which
    would be taken for two seeds, the one named first is looked at; a warning says which were not.

    Args:
        folders: run folders, or folders that hold run folders.

    Raises:
        UserError: a folder holds no finished run, or fewer than two runs were named.
    """
    from foreword.common.run_files import RECIPE, is_finished

    refuse_single("folders", folders)
    check_installed()
    named: list[Path] = []
    for folder in map(Path, folders):
        if (folder / RECIPE).exists():
            named.append(folder)
            continue
        inside = [file.parent for file in sorted(folder.glob(f"**/{RECIPE}"))]
        named += [run for run in inside if is_finished(run)]
        if not inside:
            raise UserError(f"{folder}: holds no run: there is no {RECIPE} in it or below it")
    runs, repeats = _unlike([read_measured(folder) for folder in dict.fromkeys(named)])
    if len(runs) < 2:
        left = "".join(f"; {line}" for line in repeats)
        raise UserError(
            f"a comparison needs two finished runs at least; name more run folders{left}"
        )
    command = f"foreword compare {' '.join(shlex.quote(str(one)) for one in folders)}"
    content = summarise("comparison", _named_apart(runs), command=command, warnings=repeats)
    return Comparison(content)


def _unlike(runs: Sequence[Measured]) -> tuple[list[Measured], list[str]]:
    """The runs without those that repeat another, and a line for each of these."""
    first: dict[tuple[str, str], Measured] = {}
    lines = []
    for run in runs:
        key = run.method, run.recipe.model_dump_json(exclude={"name"})
        kept = first.setdefault(key, run)
        if kept is not run:
            lines.append(
                f"{run.folder} is a run of the same recipe and seed as {kept.folder}, and was left "
                "out."
            )
    return list(first.values()), lines


def _named_apart(runs: Sequence[Measured]) -> list[Measured]:
    """The runs, named so that those of one name differ in the seed alone."""
    kinds: dict[str, dict[str, int]] = {}
    named = []
    for run in runs:
        plain = run.recipe.model_dump(mode="json", exclude={"seed", "name"})
        numbers = kinds.setdefault(run.method, {})
        number = numbers.setdefault(json.dumps(plain, sort_keys=True), len(numbers) + 1)
        named.append((run, number))
    return [
        replace(
            run, method=run.method if len(kinds[run.method]) == 1 else f"{run.method} #{number}"
        )
        for run, number in named
    ]
