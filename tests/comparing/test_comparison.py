"""Runs of a grid: done once, gone on with, and read into a report."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import sys
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import yaml
from finished_runs import QUICKSTART, a_run
from markupsafe import escape

from foreword.common.files import Occupied
from foreword.common.progress import Silent
from foreword.comparing import compare, compare_runs, comparison, executing
from foreword.comparing.cells import Place
from foreword.comparing.comparison import Unwatched
from foreword.comparing.costs import Cost, add_cost, read_cost
from foreword.comparing.executing import Failure, Loaded, execute
from foreword.comparing.grid import Cell
from foreword.comparing.items import resampled
from foreword.comparing.measured import read_measured
from foreword.comparing.plots import plots_of
from foreword.comparing.summary import summarise
from foreword.errors import RunError, UserError
from foreword.extensions import loaded_plugins
from foreword.recipe import load_recipe
from launching import Launcher

GRID: dict[str, Any] = {
    "version": 1,
    "name": "tried",
    "recipe": str(QUICKSTART),
    "set": {
        "training.steps": 3,
        "training.batch_size": 4,
        "training.evaluate_every": 1,
        "task.limits.train": 16,
        "task.limits.dev": 4,
        "task.limits.test": 6,
        "decoding.max_new_tokens": 8,
        "evaluation.backbone_alone": False,
    },
    "seeds": [0, 1],
    "grid": {"method.length": [1, 3]},
}


class Counted:
    """Which runs began."""

    def __init__(self) -> None:
        self.begun: list[str] = []

    def planned(self, places: object) -> None: ...

    def began(self, place: Place) -> None:
        self.begun.append(place.cell.name)

    def ended(self, place: Place, failure: Failure | None) -> None:
        assert failure is None, failure


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs and the report of a small grid."""
    folder = tmp_path_factory.mktemp("grid")
    grid = {**GRID, "runs": {"in the input": {"method": {"name": "prompt-tuning", "length": 2}}}}
    (folder / "grid.yaml").write_text(yaml.safe_dump(grid), encoding="utf-8")
    compare(folder / "grid.yaml", out=folder / "out", workers=1, device="cpu")
    return folder


@pytest.mark.slow
def test_the_report_has_every_method_and_its_cost(compared: Path) -> None:
    content = json.loads((compared / "out" / "report.json").read_text(encoding="utf-8"))
    names = [method["name"] for method in content["methods"]]
    assert names == ["length 1", "length 3", "in the input"]
    for method in content["methods"]:
        assert method["seeds"] == [0, 1]
        assert len(method["scores"]["chrf"]["values"]) == 2
        cost = method["cost"]
        each = 3072 if method["method"] == "prefix-tuning" else 256
        assert cost["trained_parameters"] == each * method["length"]
        assert cost["seconds_a_step_ratio"] >= 1
        assert cost["peak_mb"] >= 0
        assert cost["tokens_to_95"] > 0
    assert content["x"] == "method.length"
    assert len(content["comparisons"]["chrf"]) == 3
    for pair in content["comparisons"]["chrf"]:
        assert pair["of_methods"]
        assert 0 <= pair["p"] <= 1
    assert any("length 1" in line for line in content["sentences"])


@pytest.mark.slow
def test_finished_runs_are_not_run_again_and_a_lost_one_alone_is(compared: Path) -> None:
    watcher = Counted()
    compare(compared / "grid.yaml", out=compared / "out", watcher=watcher, device="cpu")
    assert watcher.begun == []
    lost = next((compared / "out" / "runs").glob("length-3-seed-1-*"))
    before = json.loads((lost / "metrics.json").read_text(encoding="utf-8"))["prompt"]
    shutil.rmtree(lost)
    compare(compared / "grid.yaml", out=compared / "out", watcher=watcher, workers=1, device="cpu")
    assert watcher.begun == ["length 3, seed 1"]
    assert json.loads((lost / "metrics.json").read_text(encoding="utf-8"))["prompt"] == before


@pytest.mark.slow
def test_runs_that_exist_are_compared_as_the_grid_compares_them(compared: Path) -> None:
    content = compare_runs([compared / "out" / "runs"]).content
    whole = json.loads((compared / "out" / "report.json").read_text(encoding="utf-8"))
    named = {tuple(m["scores"]["chrf"]["values"]) for m in content["methods"]}
    assert named == {tuple(m["scores"]["chrf"]["values"]) for m in whole["methods"]}
    numbered = ["#" in method["name"] for method in content["methods"]]
    assert numbered.count(False) == 1, "two prefixes are told apart, prompt tuning is one alone"


@pytest.mark.slow
def test_metrics_on_all_items_agree_with_the_runs_own(compared: Path) -> None:
    folder = next((compared / "out" / "runs").glob("length-3-seed-0-*"))
    run = read_measured(folder)
    for metric, value in run.metrics["prompt"]["all"].items():
        drawn = resampled(metric, run.answers, run.examples, value, run.options)
        assert drawn is not None, metric
        assert drawn.shape == (1000,)
        assert drawn.min() - 1e-9 <= value <= drawn.max() + 1e-9


@pytest.mark.slow
def test_the_page_loads_nothing_and_says_every_plot_in_words(compared: Path) -> None:
    page = (compared / "out" / "report.html").read_text(encoding="utf-8")
    head = page[: page.index('<script type="application/json"')]
    assert not re.search(r"(?:src|href)=[\"'](?!#|data:,)", head)
    plots = re.findall(r'<div class="plot"[^>]*aria-label="([^"]+)"', page)
    assert len(plots) >= 4
    assert all(len(alternative) > 40 for alternative in plots)
    assert page.count("<h1") == 1


@pytest.mark.slow
def test_the_page_marks_what_is_not_right_and_names_the_nearest_words(compared: Path) -> None:
    page = (compared / "out" / "report.html").read_text(encoding="utf-8")
    content = json.loads((compared / "out" / "report.json").read_text(encoding="utf-8"))
    assert "<mark>" in page
    (tokens,) = content["words"].values()
    assert set(content["words"]) == {"in the input"}
    assert [len(words) for words in tokens] == [5, 5]
    for words in tokens:
        assert f"<li>{escape(', '.join(words))}</li>" in page


@pytest.mark.slow
def test_two_processes_give_what_one_gives(compared: Path, tmp_path: Path) -> None:
    grid = {**GRID, "seeds": [0]}
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(grid), encoding="utf-8")
    compare(tmp_path / "grid.yaml", out=tmp_path / "out", workers=2, device="cpu")
    runs = list((tmp_path / "out" / "runs").iterdir())
    assert len(runs) == 2
    for run in runs:
        one, whole = (
            json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["prompt"]["all"]
            for folder in (run, compared / "out" / "runs" / run.name)
        )
        assert one == pytest.approx(whole, abs=1e-6)


def test_a_worker_has_the_plugins_of_the_process_that_begins_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "own.py"
    file.write_text("import os\nos.environ['OWN_PLUGIN_RAN'] = 'yes'\n", encoding="utf-8")
    monkeypatch.setenv("OWN_PLUGIN_RAN", "no")
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("torch.set_num_threads", lambda _: None)
    monkeypatch.setattr(executing, "_worker", None)
    monkeypatch.setattr("sys.modules", dict(sys.modules))
    executing._begin_worker("cpu", False, 1, [str(file)])
    assert os.environ["OWN_PLUGIN_RAN"] == "yes"
    assert str(file.resolve()) in loaded_plugins()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RunError("loss is not finite"), "loss is not finite"),
        (MemoryError(), "out of memory; give a smaller training.batch_size"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB."), "asked for 2.00 GiB"),
        (OSError(errno.ENOSPC, "No space left on device", "x"), "No space left on device: 'x'"),
        (KeyError("a mistake of ours"), "KeyError: 'a mistake of ours'"),
    ],
)
def test_a_run_that_fails_is_named_and_the_others_go_on(
    error: Exception, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from foreword.comparing.cells import places_of
    from foreword.comparing.grid import load_grid

    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(GRID), encoding="utf-8")
    _, cells = load_grid(tmp_path / "grid.yaml")
    places = places_of(cells, tmp_path / "out")

    errors = iter([UserError("does not fit"), error])

    def run(self: Loaded, recipe: Any, folder: Path, progress: Any, **_: Any) -> None:
        if recipe.seed == 1:
            raise next(errors)

    monkeypatch.setattr(Loaded, "run", run)

    class Ends:
        def __init__(self) -> None:
            self.ended_ones: list[bool] = []

        def planned(self, places: object) -> None: ...

        def began(self, place: Place) -> None: ...

        def ended(self, place: Place, failure: Failure | None) -> None:
            self.ended_ones.append(failure is not None)

    watcher = Ends()
    first, second = execute(places, watcher=watcher, loaded=Loaded("cpu"), workers=1)
    assert watcher.ended_ones == [False, True, False, True]
    assert first.reason == "does not fit"
    assert reason in second.reason
    assert "--" not in second.reason


def test_what_ends_a_run_from_outside_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class GivenUp(Exception): ...

    def run(self: Loaded, *_: Any, watch: Any) -> None:
        watch({"step": 1.0})

    def give_up(entry: Any) -> None:
        raise GivenUp

    monkeypatch.setattr(Loaded, "run", run)
    place = Place(Cell({}, load_recipe(QUICKSTART)), tmp_path)
    with pytest.raises(GivenUp):
        executing.attempt(place, Loaded("cpu"), Silent(), give_up)


class Pool:
    """Workers of which each run ends with an error of its own."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self._processes: dict[int, Any] = {}

    def submit(self, do: Any, place: Place) -> Future[str | None]:
        future: Future[str | None] = Future()
        future.set_exception(TypeError("cannot be pickled"))
        return future

    def shutdown(self, **_: Any) -> None: ...


def test_a_worker_that_raises_ends_its_run_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executing, "ProcessPoolExecutor", Pool)
    recipes = [load_recipe(QUICKSTART, [f"seed={seed}"]) for seed in range(3)]
    places = [Place(Cell({}, one), tmp_path / f"{one.seed}") for one in recipes]
    watcher = Unwatched(Silent())
    failures = execute(places, watcher=watcher, loaded=Loaded("cpu"), workers=2)
    assert [failure.reason for failure in failures] == ["TypeError: cannot be pickled"] * 3


@pytest.fixture
def unloaded(monkeypatch: pytest.MonkeyPatch) -> Loaded:
    """What runs recipes, without a backbone."""
    loaded = Loaded("cpu")
    monkeypatch.setattr(loaded, "_backbone", lambda _: None)
    monkeypatch.setattr(executing, "write_words", lambda *_: None)
    return loaded


def test_the_cost_of_a_run_is_that_of_all_of_its_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unloaded: Loaded
) -> None:
    from foreword.runs import Stopped

    recipe, folder, before = load_recipe(QUICKSTART), tmp_path / "run", Cost(100.0, 5 * 2**30)

    def stop(*_: Any, **__: Any) -> None:
        folder.mkdir()
        (folder / "recipe.yaml").write_text("", encoding="utf-8")
        raise Stopped(2)

    monkeypatch.setattr("foreword.runs.train", stop)
    with pytest.raises(Stopped):
        unloaded.run(recipe, folder, Silent())
    first = read_cost(folder)
    assert first is not None
    assert first.seconds > 0

    def finish(*_: Any, **__: Any) -> None:
        (folder / "metrics.json").write_text("{}", encoding="utf-8")

    add_cost(folder, before)
    monkeypatch.setattr("foreword.runs.train", finish)
    unloaded.run(recipe, folder, Silent())
    whole = read_cost(folder)
    assert whole is not None
    assert whole.seconds > 100 + first.seconds
    assert whole.peak_bytes == before.peak_bytes

    unloaded.run(recipe, folder, Silent())
    assert read_cost(folder) == whole, "another command had finished it"


@pytest.mark.parametrize("workers", [1, 2])
def test_each_backbone_is_loaded_once_whatever_the_order_of_axes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    names = ["foreword/mini", "foreword/mini-seq2seq"]
    places = [
        Place(
            Cell({}, load_recipe(QUICKSTART, [f"seed={seed}", f"backbone={name}"])),
            tmp_path / f"{seed}-{names.index(name)}",
        )
        for seed in range(3)
        for name in names
    ]
    loads: list[str] = []
    monkeypatch.setattr("foreword.backbone.load_backbone", lambda name, **_: loads.append(name))
    monkeypatch.setattr("foreword.runs.train", lambda *_, **__: None)
    monkeypatch.setattr(executing, "write_words", lambda *_: None)
    loaded = Loaded("cpu")
    monkeypatch.setattr(executing, "_worker", loaded)
    monkeypatch.setattr(executing, "ProcessPoolExecutor", Here)
    watcher = Counted()
    assert execute(places, watcher=watcher, loaded=loaded, workers=workers) == []
    assert loads == names
    assert [name.rpartition(" ")[2] for name in watcher.begun] == ["0", "1", "2"] * 2


class Here(Pool):
    """A worker that is this process."""

    def submit(self, do: Any, place: Place) -> Future[str | None]:
        future: Future[str | None] = Future()
        future.set_result(do(place))
        return future


def test_a_folder_with_half_a_recipe_takes_a_run(tmp_path: Path) -> None:
    tiny = [
        "training.steps=1",
        "training.evaluate_every=1",
        "task.limits.train=2",
        "task.limits.dev=1",
        "task.limits.test=1",
        "decoding.max_new_tokens=1",
        "evaluation.backbone_alone=false",
    ]
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / ".recipe.yaml.abc.tmp").write_text("version:", encoding="utf-8")
    Loaded("cpu").run(load_recipe(QUICKSTART, tiny), folder, Silent())
    assert (folder / "metrics.json").exists()
    assert not list(folder.glob(".recipe*"))


def test_a_run_of_another_command_keeps_its_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unloaded: Loaded
) -> None:
    (tmp_path / "recipe.yaml").write_text("", encoding="utf-8")
    add_cost(tmp_path, Cost(100.0, 5))

    def refuse(*_: Any, **__: Any) -> None:
        raise Occupied("another command writes into it")

    monkeypatch.setattr("foreword.runs.train", refuse)
    with pytest.raises(Occupied):
        unloaded.run(load_recipe(QUICKSTART), tmp_path, Silent())
    assert read_cost(tmp_path) == Cost(100.0, 5)


def test_a_run_that_was_done_twice_is_no_second_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = {"x": 0, "x-2": 0, "y": 1}
    for name in runs:
        (tmp_path / name).mkdir()
        (tmp_path / name / "recipe.yaml").write_text("", encoding="utf-8")
    monkeypatch.setattr(
        comparison, "read_measured", lambda folder: a_run(folder, runs[folder.name], 50.0)
    )
    content = compare_runs([tmp_path / name for name in runs]).content
    assert [method["seeds"] for method in content["methods"]] == [[0, 1]]
    assert (
        f"{tmp_path / 'x-2'} is a run of the same recipe and seed as {tmp_path / 'x'}, and"
        in (content["warnings"][0])
    )
    with pytest.raises(UserError, match=r"two finished runs at least.*same recipe and seed"):
        compare_runs([tmp_path / "x", tmp_path / "x-2"])


def test_two_names_of_a_run_that_failed_have_both_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(self: Loaded, *_: Any, **__: Any) -> None:
        raise UserError("does not fit")

    monkeypatch.setattr(Loaded, "run", run)
    monkeypatch.setattr(comparison, "places_of", same_place)
    names = {"runs": {"one": {"method.length": 1}, "other": {"method.length": 1}}, "grid": {}}
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(GRID | names | {"seeds": [0]}), "utf-8")
    with pytest.raises(RunError, match="all 2 runs failed; the first: does not fit"):
        compare(tmp_path / "grid.yaml", out=tmp_path / "out", workers=1, device="cpu")


def same_place(cells: Any, out: Path) -> list[Place]:
    return [Place(cell, out / "runs" / "same") for cell in cells]


def test_plots_have_the_best_first_and_numbers_alone_on_x(tmp_path: Path) -> None:
    scores = {"a": 70.0, "b": 30.0, "c": 50.0}
    runs = [a_run(tmp_path, 0, score, method=name) for name, score in scores.items()]
    content = summarise("ter", runs, x="method")
    assert content["metrics"][0]["better"] == "low"
    (plot,) = plots_of(content)
    assert "x" not in plot.title.split()
    assert plot.spec["layer"][0]["encoding"]["y"]["sort"] == ["b", "c", "a"]
    lengths = [a_run(tmp_path, 0, 9.0, length=length) for length in ("1", "nan", "3")]
    assert summarise("ter", lengths)["x"] is None


def test_a_comparison_needs_two_runs(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no run"):
        compare_runs([tmp_path])


def test_what_is_missing_is_named_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foreword.comparing.page.NEEDED", ("json", "not_there_at_all"))
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(GRID), encoding="utf-8")
    with pytest.raises(UserError, match=r"needs not_there_at_all.*foreword\[compare\]"):
        compare(tmp_path / "grid.yaml", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_killed_comparisons_run_nothing_anew(launcher: Launcher, tmp_path: Path) -> None:
    """SIGKILL as soon as a run is finished, and within another."""
    tiny = {**GRID["set"], "training.steps": 2, "task.limits.test": 2, "task.limits.dev": 2}
    grid = {**GRID, "set": tiny, "seeds": [0], "grid": {"method.length": [1, 2, 3]}}
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(grid), encoding="utf-8")
    words = ["compare", "grid.yaml", "--out", "out", "--workers", "1", "--device", "cpu"]
    runs = tmp_path / "out" / "runs"
    for file, count in (("metrics.json", 1), ("log.jsonl", 2)):
        started = launcher.start(tmp_path, words)
        while len(list(runs.glob(f"*/{file}"))) < count:
            assert not started.wait(0.001), started.printed()
        assert started.end(signal.SIGKILL) == -signal.SIGKILL
    finished = {file: file.stat().st_mtime_ns for file in runs.glob("*/metrics.json")}
    assert finished
    launcher.run(tmp_path, words)
    assert all(file.stat().st_mtime_ns == before for file, before in finished.items())
    assert len(list(runs.glob("*/metrics.json"))) == len(list(runs.iterdir())) == 3
    content = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert not content["failures"]
