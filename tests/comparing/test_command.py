"""`foreword compare` by name, and its table while runs go on."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from finished_runs import QUICKSTART
from rich.console import Console
from typer.testing import CliRunner

from foreword.cli import live
from foreword.cli.app import app
from foreword.comparing.cells import Place
from foreword.comparing.grid import Cell
from foreword.recipe import load_recipe

GRID: dict[str, Any] = {
    "version": 1,
    "name": "tiny",
    "recipe": str(QUICKSTART),
    "set": {
        "training.steps": 1,
        "training.batch_size": 2,
        "task.limits.train": 4,
        "task.limits.dev": 1,
        "task.limits.test": 2,
        "decoding.max_new_tokens": 2,
        "evaluation.backbone_alone": False,
    },
    "grid": {"method.length": [1, 2]},
}
NAMED = [f"quickstart (prefix-tuning) #{number}" for number in (1, 2)]
WARNING = "One seed only: length 1, length 2. Another seed may turn the order of methods around"


@pytest.mark.slow
def test_a_grid_and_then_its_runs_are_compared_by_name(tmp_path: Path) -> None:
    grid, out = tmp_path / "grid.yaml", tmp_path / "out"
    grid.write_text(yaml.safe_dump(GRID), encoding="utf-8")
    asked = ["compare", str(grid), "--out", str(out), "--workers", "1", "--device", "cpu"]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    assert "1/2 length 1, seed 0: done [0:" in done.stderr
    assert "2/2 length 2, seed 0: done [0:" in done.stderr
    assert "0:00 left]" in done.stderr
    assert WARNING in done.stdout
    assert f"report: {out / 'report.html'}" in done.stdout
    content = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert any(line.startswith(WARNING) for line in content["warnings"])

    again = CliRunner().invoke(app, [*asked, "--json"])
    assert again.exit_code == 0, again.output
    assert "2 of 2 runs are there already" in again.stderr
    assert [m["name"] for m in json.loads(again.stdout)["methods"]] == ["length 1", "length 2"]

    runs = sorted(map(str, (out / "runs").iterdir()))
    assert len(runs) == 2
    named = CliRunner().invoke(app, ["compare", *runs, "--out", str(tmp_path / "named")])
    assert named.exit_code == 0, named.output
    assert WARNING.replace("length 1, length 2", ", ".join(NAMED)) in named.stdout
    assert all(name in named.stdout for name in NAMED)
    assert (tmp_path / "named" / "report.html").exists()


class Clock:
    """Time that passes where it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(live, "time", clock)
    return clock


def test_the_pace_of_runs_tells_the_time_left(clock: Clock) -> None:
    pace = live.Pace(total=5, finished=1)
    clock.now = 10
    assert str(pace) == "0:10 spent"
    clock.now = 60
    pace.ended()
    assert str(pace) == "1:00 spent, 3:00 left"
    clock.now = 90
    assert str(pace) == "1:30 spent, 2:30 left"
    for _ in range(3):
        pace.ended()
    assert str(pace) == "1:30 spent, 0:00 left"


def test_the_live_table_says_what_is_done_and_the_time_left(tmp_path: Path, clock: Clock) -> None:
    recipe = load_recipe(QUICKSTART)
    places = [
        Place(Cell({"method.length": str(length)}, recipe), tmp_path / str(length))
        for length in range(3)
    ]
    (tmp_path / "0").mkdir()
    for file in ("recipe.yaml", "metrics.json"):
        (tmp_path / "0" / file).write_text("{}", encoding="utf-8")
    pace = live.Pace(len(places), 0)
    table = live._Drawn(places, pace)
    try:
        table.began(places[0])
        clock.now = 30
        pace.ended()
        table.ended(places[0], failed=False)
        table.began(places[1])
        shown = StringIO()
        Console(file=shown, width=80).print(table._table())
        pace.ended()
        table.ended(places[1], failed=True)
        later = StringIO()
        Console(file=later, width=80).print(table._table())
    finally:
        table.end()
    lines = {line.strip().split("  ")[0]: line for line in shown.getvalue().splitlines()}
    assert "1/1" in lines["length 0"]
    assert "seed 0: begins" in lines["length 1"]
    assert "1/3 runs, 0:30 spent, 1:00 left" in shown.getvalue()
    assert "0/1, 1 failed" in later.getvalue()
    assert "2/3 runs, 0:30 spent, 0:15 left" in later.getvalue()


def test_lines_alone_are_said_where_there_is_no_terminal(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    table = live.live_table([], live.Pace(0, 0))
    table.say("a line")
    table.end()
    assert capsys.readouterr().err == "a line\n"
