"""A search finds what was planted, goes on where it was stopped, and reads no test set."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import Engine, event

from foreword.cli.searching import search as find
from foreword.common import files
from foreword.common.memory import advice
from foreword.comparing.cluster import Cluster
from foreword.comparing.constraints import Constraint
from foreword.comparing.executing import Loaded
from foreword.comparing.grid import written_changes
from foreword.comparing.searching import search
from foreword.comparing.space import Range, Space, check_recipes, load_space, usual_space
from foreword.comparing.study import drawn, import_optuna, importances
from foreword.comparing.trials import Runner
from foreword.errors import RecipeError, RunError, UserError
from foreword.recipe import Recipe, load_recipe
from foreword.training.signals import Stopped
from launching import Launcher

QUICKSTART = Path(__file__).resolve().parents[2] / "recipes" / "quickstart.yaml"
SPACES = QUICKSTART.parents[1] / "spaces"


@pytest.fixture(scope="module", autouse=True)
def _unsynced() -> Iterator[None]:
    """No search waits until the disk has its study, as no other file does in tests."""

    def off(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA synchronous = OFF")

    event.listen(Engine, "connect", off)
    yield
    event.remove(Engine, "connect", off)


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> list[Recipe]:
    """Runs that write figures by a formula: best at a rate of 0.01 and as long as may be."""
    seen: list[Recipe] = []

    def run(self: Loaded, recipe: Recipe, folder: Path, progress: Any, **_: Any) -> None:
        import math

        seen.append(recipe)
        value = 50 - abs(math.log10(recipe.training.learning_rate) + 2) + recipe.method.length / 10
        folder.mkdir(parents=True)
        figures = {
            "split": "dev",
            "examples": 1,
            "truncated": 0,
            "prompt": {"all": {"bleu": value}},
            "training": {
                "trained_parameters": recipe.method.length,
                "best_step": 3,
                "evaluations": [
                    {"step": 3, "loss": recipe.method.length / 10 + value / 100},
                    {"step": 6, "loss": 0.0},
                ],
            },
            "artifact_bytes": 1000 * recipe.method.length,
            "seconds": {"all": 1.0},
        }
        (folder / "metrics.json").write_text(json.dumps(figures), encoding="utf-8")

    monkeypatch.setattr(Loaded, "run", run)
    return seen


def space_file(folder: Path, **axes: Any) -> Path:
    file = folder / "space.yaml"
    apart = json.loads(json.dumps(axes))  # what stands twice is written twice
    file.write_text(yaml.safe_dump(apart), encoding="utf-8")
    return file


def test_what_was_planted_is_found_within_the_constraint(
    planted: list[Recipe], tmp_path: Path
) -> None:
    space = load_space(
        space_file(
            tmp_path,
            **{
                "training.learning_rate": {"low": 1e-5, "high": 1.0, "log": True},
                "method.length": {"low": 1, "high": 64},
            },
        )
    )
    outcome = search(
        QUICKSTART,
        budget=3600,
        trials=25,
        out=tmp_path / "out",
        space=space,
        constraints=["artifact_kb < 20"],
    )
    assert outcome.best is not None
    assert outcome.best.method.length < 20
    assert 1e-3 < outcome.best.training.learning_rate < 1e-1
    assert outcome.best.task.data.test is not None
    assert all(recipe.task.data.test is None for recipe in planted)
    assert len(planted) == 25
    assert sum(outcome.importances.values()) == pytest.approx(1)
    assert (tmp_path / "out" / "best.yaml").exists()


def test_a_search_needs_no_test_set(planted: list[Recipe], tmp_path: Path) -> None:
    space = load_space(space_file(tmp_path, **{"method.length": {"low": 30, "high": 50}}))
    missing = str(tmp_path / "not-there.jsonl")
    options: dict[str, Any] = {"space": space, "overrides": [f"task.data.test={missing}"]}
    outcome = search(QUICKSTART, budget=3600, trials=1, out=tmp_path / "out", **options)
    assert outcome.best is not None
    assert outcome.best.task.data.test == missing


def test_one_seed_is_said_of_the_recipe_that_won(
    planted: list[Recipe], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = space_file(tmp_path, **{"method.length": {"low": 1, "high": 50}})
    find(QUICKSTART, budget="1h", space=space, runs=2, out=tmp_path / "out")
    report = json.loads((tmp_path / "out" / "search.json").read_text("utf-8"))
    line = f"run {report['best']} is the best of single runs, each with one seed (0): what it is"
    assert report["warning"].startswith(line)
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.count(f"note: {report['warning']}") == 1
    best = tmp_path / "out" / "best.yaml"
    assert best.read_text("utf-8").splitlines()[0] == f"# {report['warning']}"
    assert load_recipe(best).method.length in (trial.method.length for trial in planted)


def test_a_search_goes_on_with_what_it_knows(planted: list[Recipe], tmp_path: Path) -> None:
    options: dict[str, Any] = {"budget": 3600, "out": tmp_path / "out"}
    options["space"] = load_space(space_file(tmp_path, **{"method.length": {"low": 1, "high": 9}}))
    first = search(QUICKSTART, trials=3, **options)
    second = search(QUICKSTART, trials=5, **options)
    assert len(planted) == 5
    assert [dict(t["changes"]) for t in second.trials[:3]] == [
        dict(t["changes"]) for t in first.trials
    ]


def test_the_loss_of_the_state_that_is_kept_decides(planted: list[Recipe], tmp_path: Path) -> None:
    space = load_space(space_file(tmp_path, **{"method.length": {"low": 1, "high": 9}}))
    outcome = search(
        QUICKSTART, budget=3600, trials=12, out=tmp_path / "out", space=space, metric="loss"
    )
    assert outcome.ranked[-1]["own"]
    lengths = [trial["changes"]["method.length"] for trial in outcome.ranked[:-1]]
    assert outcome.best is not None
    assert outcome.best.method.length == min(lengths) == lengths[0]
    assert lengths == sorted(lengths)
    assert len(planted) == 12


def test_what_may_decide_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the task measures bleu.*, and there is 'loss'"):
        search(QUICKSTART, budget=1, out=tmp_path, metric="accuracy")


def test_the_recipes_own_settings_come_first(planted: list[Recipe], tmp_path: Path) -> None:
    space = load_space(
        space_file(
            tmp_path,
            **{
                "training.learning_rate": {"low": 1e-5, "high": 1.0, "log": True},
                "training.loss": ["sequence_sum", "token_mean"],
                "method": {
                    "other": {"method": "lora"},
                    "prefix": {"method.length": {"low": 1, "high": 64}, "training.steps": 700},
                },
            },
        )
    )
    only = search(QUICKSTART, budget=3600, trials=1, out=tmp_path / "out", space=space)
    assert [trial["own"] for trial in only.trials] == [True]
    outcome = search(QUICKSTART, budget=3600, trials=3, out=tmp_path / "out", space=space)
    assert planted[0].method.length == 40
    assert planted[0].training.learning_rate == pytest.approx(0.2)
    assert planted[0].training.loss == "token_mean"
    assert [trial["own"] for trial in outcome.trials] == [True, False, False]
    again = search(QUICKSTART, budget=3600, trials=4, out=tmp_path / "out", space=space)
    assert [trial["own"] for trial in again.trials] == [True, False, False, False]


def test_a_recipe_outside_of_the_space_comes_first_too(
    planted: list[Recipe], tmp_path: Path
) -> None:
    space = load_space(space_file(tmp_path, **{"method.length": {"low": 1, "high": 9}}))
    only = search(QUICKSTART, budget=3600, trials=1, out=tmp_path / "out", space=space)
    assert only.best == load_recipe(QUICKSTART)
    outcome = search(QUICKSTART, budget=3600, trials=6, out=tmp_path / "out", space=space)
    assert [trial["own"] for trial in outcome.trials] == [True, *[False] * 5]
    assert outcome.trials[0]["changes"] == {}
    assert planted[0].method == load_recipe(QUICKSTART).method
    assert all(recipe.method.length < 10 for recipe in planted[1:])


@pytest.mark.parametrize(
    "axes",
    [
        {"method.length": {"low": 1, "high": 39}},
        {"training.loss": ["sequence_sum", "sequence_sum"]},
        {"method": {"a": {"method": "lora"}}},
        {"method.nothing": {"low": 1, "high": 39}},
    ],
)
def test_a_space_without_the_recipes_settings(axes: dict[str, Any], tmp_path: Path) -> None:
    recipe = load_recipe(QUICKSTART)
    space = load_space(space_file(tmp_path, **axes))

    def made(changes: Mapping[str, Any]) -> Recipe:
        return load_recipe(QUICKSTART, written_changes(changes))

    assert space.own(recipe, made) is None


def test_ranges_around_the_recipes_own(tmp_path: Path) -> None:
    axes = {
        "training.learning_rate": {"around": 4},
        "method": {"longer": {"method.length": {"around": 1.5}, "training.clip": 1.0}},
    }
    space = load_space(space_file(tmp_path, **axes)).around(load_recipe(QUICKSTART))
    assert space.axes["training.learning_rate"] == Range(low=0.05, high=0.8, log=True)
    longer = space.axes["method"]["longer"]
    assert longer == {"method.length": Range(low=27, high=60, log=True), "training.clip": 1.0}
    assert longer["method.length"].whole


@pytest.mark.parametrize("name", ["quickstart", "rate", "steps"])
def test_shipped_spaces_hold_their_recipes(name: str) -> None:
    recipe = load_recipe(QUICKSTART)
    space = load_space(SPACES / f"{name}.yaml").around(recipe)

    def made(changes: Mapping[str, Any]) -> Recipe:
        return load_recipe(QUICKSTART, written_changes(changes))

    suggested = space.own(recipe, made)
    assert suggested is not None
    assert suggested["training.learning_rate"] == pytest.approx(0.2)


def test_so_many_times_the_recipes_own(planted: list[Recipe], tmp_path: Path) -> None:
    axes = {
        "training.steps": {"times": [0.5, 1, 2]},
        "rates": {"own": {"training.learning_rate": {"times": [1, 0.25]}}},
    }
    space = load_space(space_file(tmp_path, **axes))
    search(QUICKSTART, budget=3600, trials=12, out=tmp_path / "out", space=space)
    assert (planted[0].training.steps, planted[0].training.learning_rate) == (700, 0.2)
    assert {recipe.training.steps for recipe in planted} == {350, 700, 1400}
    assert {recipe.training.learning_rate for recipe in planted} == {0.05, 0.2}


def test_one_of_some_values_inside_of_a_choice(tmp_path: Path) -> None:
    starts = ["random", {"kind": "activations", "examples": 4}]
    axes = {"method": {"b": {"method": "lora"}, "a": {"method.init": {"one_of": starts}}}}
    space = load_space(space_file(tmp_path, **axes))

    def made(changes: Mapping[str, Any]) -> Recipe:
        return load_recipe(QUICKSTART, written_changes(changes))

    assert space.own(made({}), made) == {"method": "a", "method/a/method.init": 1}
    changes = [space.choose(trial) for trial in drawn(import_optuna(), 16)]
    assert all(one == {"method": "lora"} or one["method.init"] in starts for one in changes)
    assert all(any(one.get("method.init") == start for one in changes) for start in starts)


@pytest.mark.parametrize("axis", [{"around": 4}, {"times": [0.5, 2]}])
def test_no_values_around_what_is_no_number(axis: dict[str, Any], tmp_path: Path) -> None:
    space = load_space(space_file(tmp_path, **{"training.clip": axis}))
    with pytest.raises(UserError, match=r"training\.clip: the recipe has None there"):
        space.around(load_recipe(QUICKSTART))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"metric": "loss"}, 'metric: was "bleu", is "loss"'),
        ({"overrides": ["training.steps=800"]}, "recipe.training.steps: was 700, is 800"),
        ({"space": {"method.length": [2, 4, 8]}}, "space.method.length: was [2, 4], is [2, 4, 8]"),
    ],
)
def test_a_search_of_something_else_is_refused(
    change: dict[str, Any], line: str, planted: list[Recipe], tmp_path: Path
) -> None:
    def given(space: dict[str, Any], **options: Any) -> Any:
        return {"budget": 3600, "out": tmp_path / "out"} | {
            "space": load_space(space_file(tmp_path, **space)),
            **options,
        }

    axes: dict[str, Any] = {"space": {"method.length": [2, 4]}}
    search(QUICKSTART, trials=2, **given(**axes))
    with pytest.raises(UserError, match="holds a search of something else") as caught:
        search(QUICKSTART, trials=4, **given(**(axes | change)))
    assert line in str(caught.value)
    assert len(planted) == 2


def test_other_constraints_choose_among_what_was_tried(
    planted: list[Recipe], tmp_path: Path
) -> None:
    space = load_space(space_file(tmp_path, **{"method.length": [5, 40, 60]}))
    options: dict[str, Any] = {"budget": 3600, "out": tmp_path / "out", "space": space}
    free = search(QUICKSTART, trials=8, **options)
    bound = search(QUICKSTART, trials=8, constraints=["artifact_kb < 30"], **options)
    assert free.best is not None
    assert bound.best is not None
    assert (free.best.method.length, bound.best.method.length) == (60, 5)
    assert [trial["fits"] for trial in bound.trials] == [
        recipe.method.length == 5 for recipe in planted
    ]
    assert {recipe.method.length for recipe in planted} == {5, 40, 60}
    assert len(planted) == 8


def test_a_search_that_goes_on_chooses_anew(planted: list[Recipe], tmp_path: Path) -> None:
    space = load_space(
        space_file(tmp_path, **{"training.learning_rate": {"low": 1e-5, "high": 0.1, "log": True}})
    )
    for trials in (1, 2, 3):
        search(QUICKSTART, budget=3600, trials=trials, out=tmp_path / "out", space=space)
    assert len({recipe.training.learning_rate for recipe in planted}) == 3


def test_a_space_without_a_recipe(planted: list[Recipe], tmp_path: Path) -> None:
    space = load_space(
        space_file(tmp_path, **{"training.learnin_rate": {"low": 1e-4, "high": 1.0}})
    )
    with pytest.raises(RecipeError, match="did you mean 'learning_rate'"):
        search(QUICKSTART, budget=3600, out=tmp_path / "out", space=space)
    assert not planted


def test_runs_that_fail_one_after_the_other_end_a_search(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def run(*_: Any, **__: Any) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(Loaded, "run", run)
    space = load_space(space_file(tmp_path, **{"method.length": [2, 4]}))
    with pytest.raises(RunError, match=r"the last 5 runs .* failed, .*out of memory; give a"):
        search(QUICKSTART, budget=3600, out=tmp_path / "out", space=space)
    report = json.loads((tmp_path / "out" / "search.json").read_text("utf-8"))
    assert [trial["state"] for trial in report["trials"]] == ["fail"] * 5
    (reason,) = {trial["reason"] for trial in report["trials"]}
    assert reason == advice(MemoryError("no room"))


def test_a_search_that_is_stopped_writes_the_best_so_far(
    planted: list[Recipe], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    space = load_space(space_file(tmp_path, **{"method.length": {"low": 30, "high": 50}}))
    options: dict[str, Any] = {"budget": 3600, "out": tmp_path / "out", "space": space}
    run = Loaded.run

    def stopping(self: Loaded, *given: Any, **named: Any) -> Any:
        if len(planted) == 2:
            planted.append(planted[0])
            raise Stopped(signal.SIGTERM)
        return run(self, *given, **named)

    monkeypatch.setattr(Loaded, "run", stopping)
    with pytest.raises(Stopped):
        search(QUICKSTART, **options)
    assert (tmp_path / "out" / "best.yaml").exists()
    outcome = search(QUICKSTART, trials=4, **options)
    assert [trial["state"] for trial in outcome.trials] == [
        "complete",
        "complete",
        "fail",
        "complete",
    ]
    assert outcome.trials[2]["seconds"] is not None


def test_the_recipes_own_run_begins_again(
    planted: list[Recipe], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    space = load_space(space_file(tmp_path, **{"method.length": {"low": 30, "high": 50}}))
    options: dict[str, Any] = {"budget": 3600, "out": tmp_path / "out", "space": space}

    def stopping(*_: Any, **__: Any) -> None:
        raise Stopped(signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(Loaded, "run", stopping)
        with pytest.raises(Stopped):
            search(QUICKSTART, **options)
    outcome = search(QUICKSTART, trials=3, **options)
    assert [(trial["own"], trial["state"]) for trial in outcome.trials] == [
        (True, "fail"),
        (True, "complete"),
        (False, "complete"),
    ]


def test_one_search_in_a_folder(planted: list[Recipe], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with files.locked(tmp_path / "out"), pytest.raises(files.Occupied):
        search(QUICKSTART, budget=3600, trials=1, out=tmp_path / "out")
    assert not planted


def test_what_was_ended_early_has_no_value(
    planted: list[Recipe], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = Loaded.run

    def watched(self: Loaded, *given: Any, watch: Any, **named: Any) -> Any:
        if len(planted) == 1:
            planted.append(planted[0])
            with monkeypatch.context() as hopeless:
                hopeless.setattr("optuna.Trial.should_prune", lambda _: True)
                watch({"step": 10, "loss": 5.0})
            pytest.fail("the run goes on")
        return run(self, *given, watch=watch, **named)

    monkeypatch.setattr(Loaded, "run", watched)
    space = load_space(space_file(tmp_path, **{"method.length": {"low": 30, "high": 50}}))
    outcome = search(QUICKSTART, budget=3600, trials=3, out=tmp_path / "out", space=space)
    assert [trial["state"] for trial in outcome.trials] == ["complete", "pruned", "complete"]
    assert outcome.trials[1]["value"] is None
    assert outcome.ranked[-1]["state"] == "pruned"


def test_runs_are_compared_after_as_many_examples(
    planted: list[Recipe], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Batches of 4 are best, and after as many steps as others they have read the least."""
    run = Loaded.run

    def watched(self: Loaded, recipe: Recipe, *given: Any, watch: Any, **named: Any) -> Any:
        spec = recipe.training
        assert spec.steps is not None
        assert spec.evaluate_every is not None
        for step in range(spec.evaluate_every, spec.steps + 1, spec.evaluate_every):
            watch({"step": step, "loss": 5 - 3 * step / spec.steps - (spec.batch_size == 4) / 5})
        rate = 0.01 if spec.batch_size == 4 else 0.1
        spec = spec.model_copy(update={"learning_rate": rate})
        run(self, recipe.model_copy(update={"training": spec}), *given, **named)

    monkeypatch.setattr(Loaded, "run", watched)
    space = Space({"batches": load_space(SPACES / "quickstart.yaml").axes["batches"]})
    outcome = search(QUICKSTART, budget=3600, trials=20, out=tmp_path / "out", space=space)
    assert outcome.best is not None
    assert outcome.best.training.batch_size == 4
    states = [t["state"] for t in outcome.trials if t["changes"]["training.batch_size"] == 4]
    assert len(states) > 3
    assert set(states) == {"complete"}
    assert "pruned" in [trial["state"] for trial in outcome.trials]


@pytest.mark.parametrize(
    ("lengths", "other", "axis"),
    [
        ((40, 44), {"method": "lora"}, "training.learning_rate"),
        ((1, 64), {"method.length": {"low": 1, "high": 64}}, "method.length"),
    ],
    ids=["the method matters", "the method does not"],
)
def test_what_mattered_is_what_was_planted(
    lengths: tuple[int, int],
    other: dict[str, Any],
    axis: str,
    planted: list[Recipe],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Lengths of 40 to 44 are worth 4 beside none of LoRA's, and 0.4 among themselves; those of 1
    to 64 are worth 6.3, and rates 1.5 at most."""
    rates = {"training.learning_rate": {"low": 10**-3.5, "high": 10**-0.5, "log": True}}
    length = {"method.length": {"low": lengths[0], "high": lengths[1]}}
    space = space_file(tmp_path, method={"a": {**length, **rates}, "b": {**other, **rates}})
    find(QUICKSTART, budget="1h", space=space, runs=40, out=tmp_path / "out")
    report = json.loads((tmp_path / "out" / "search.json").read_text("utf-8"))
    (share,) = report["importances"].values()
    assert (share > 0.6) == (other == {"method": "lora"})
    assert report["within"]["trials"] > 8
    (name,) = report["within"]["choice"].values()
    within = report["within"]["importances"]
    assert sum(within.values()) == pytest.approx(1)
    assert max(within, key=within.__getitem__) == f"method/{name}/{axis}"
    printed = " ".join(capsys.readouterr().out.split())
    assert f"what mattered: method {share:.0%}" in printed
    runs = report["within"]["trials"]
    assert f"what mattered within method {name} ({runs} runs): {axis} " in printed


def test_choices_that_do_not_matter_have_no_share() -> None:
    """Values drawn alike for three choices in twelve runs."""
    draw = random.Random(0)
    space = Space({"method": {name: {"x": Range(low=0.0, high=1.0)} for name in "abc"}})
    optuna = import_optuna()

    def share(gain: float) -> float:
        study = optuna.create_study()
        for number in range(12):
            name = "abc"[number % 3]
            value = draw.gauss(gain * (name == "a"), 1)
            study.add_trial(
                optuna.trial.create_trial(
                    params={"method": name},
                    distributions={"method": optuna.distributions.CategoricalDistribution("abc")},
                    value=value,
                )
            )
        return importances(optuna, study, space)["method"]

    assert sum(share(0) for _ in range(20)) / 20 < 0.15
    assert sum(share(10) for _ in range(20)) / 20 > 0.9


def test_no_usual_method_fits() -> None:
    with pytest.raises(UserError, match="none of the usual methods"):
        usual_space(lambda _: False)


def test_a_rate_of_another_methods_is_left_out() -> None:
    def fits(changes: Mapping[str, Any]) -> bool:
        return changes.get("training.delta_learning_rate", 1) is None

    (methods,) = usual_space(fits).axes.values()
    assert methods["lora"]["training.delta_learning_rate"] is None
    assert isinstance(methods["prefix-tuning"]["method.length"], Range)


@pytest.mark.parametrize(
    "given", [Range(low=1e-4, high=1.0, log=True), Range(low=0.2, high=0.4), Range(low=3, high=5)]
)
def test_drawn_choices_fill_their_range(given: Range) -> None:
    space = Space({"key": given, "other": {"a": {"x": given}, "b": {}}})
    drawn_changes = [space.choose(trial) for trial in drawn(import_optuna(), 64)]
    for key in ("key", "x"):
        values = [changes[key] for changes in drawn_changes if key in changes]
        assert all(given.holds(value) for value in values)
        assert len(set(values)) > 2
    middle = (given.low * given.high) ** 0.5 if given.log else (given.low + given.high) / 2
    assert 10 < sum(changes["key"] < middle for changes in drawn_changes) < 54
    assert 10 < sum("x" in changes for changes in drawn_changes) < 54


def test_a_space_is_drawn_from_until_a_recipe_comes(tmp_path: Path) -> None:
    space = load_space(space_file(tmp_path, **{"method.length": {"low": 1, "high": 8}}))
    lengths: list[int] = []

    def made(changes: Mapping[str, Any]) -> None:
        lengths.append(changes["method.length"])
        if lengths[-1] != 8:
            raise RecipeError("recipe", [f"method.length: {lengths[-1]} is not 8"])

    check_recipes(space, made, drawn(import_optuna(), 64))
    assert lengths.count(8) == 1
    assert lengths[-1] == 8


def test_choices_of_one_name_on_two_axes(planted: list[Recipe], tmp_path: Path) -> None:
    axes = {
        "first": {"a": {"training.learning_rate": {"low": 0.1, "high": 0.3}}, "b": {}},
        "second": {"a": {"training.learning_rate": {"low": 0.5, "high": 0.6}}},
    }
    space = load_space(space_file(tmp_path, **axes))
    search(QUICKSTART, budget=3600, trials=4, out=tmp_path / "out", space=space)
    assert all(0.5 <= recipe.training.learning_rate <= 0.6 for recipe in planted[1:])


def test_the_usual_space_has_methods_that_fit() -> None:
    tried: list[dict[str, Any]] = []

    def fits(changes: dict[str, Any]) -> bool:
        tried.append(changes)
        return changes["method"] != "lora" and changes.get("method.length", 2) == 2

    space = usual_space(fits)
    (methods,) = space.axes.values()
    assert "prefix-tuning" in methods
    assert "lora" not in methods
    assert isinstance(methods["prompt-tuning"]["training.learning_rate"], Range)
    assert methods["prefix-tuning"]["method.init"].one_of[1] == "random"
    assert "method.init" not in methods["bitfit"]


def test_the_usual_space_chooses_methods_lengths_rates_and_starts() -> None:
    def made(changes: Mapping[str, Any]) -> Recipe:
        return load_recipe(QUICKSTART, written_changes(changes))

    def fits(changes: Mapping[str, Any]) -> bool:
        try:
            made(changes)
        except RecipeError:
            return False
        return True

    space = usual_space(fits)
    recipes = [made(space.choose(trial)) for trial in drawn(import_optuna(), 80)]
    kinds = {(recipe.method.name, recipe.method.init.kind) for recipe in recipes}
    assert kinds >= {
        ("prefix-tuning", "activations"),
        ("prefix-tuning", "random"),
        ("prompt-tuning", "labels"),
        ("prompt-tuning", "uniform"),
        ("lora", "random"),
    }
    assert space.own(made({}), made) is not None
    assert len({recipe.method.length for recipe in recipes}) > 8
    assert {recipe.training.steps for recipe in recipes} == {700}


@pytest.mark.parametrize(
    ("axes", "line"),
    [
        ({"method.length": {"low": 5, "high": 5}}, "method.length: range: `low` is 5"),
        ({"a": {"low": 0, "high": 1, "log": True}}, "with `log` it must be more than 0"),
        ({"method.length": [1]}, "method.length: expected two values at least"),
        ({"method": {"x": 3}}, "method.x: expected what it sets"),
        ({"method.length": {"low": 1, "high": 2, "step": 1}}, "step"),
        ({"method.length": 3}, "expected a range {low, high} or {around}, {times}, a list"),
        ({"method.length": {"around": 1}}, "`around` is 1; it must be more than 1"),
        ({"method": {"x": {"method.length": {"around": 2, "low": 1}}}}, "method.x.method.length"),
        ({"method": {"x": {"method.init": {"one_of": ["random"]}}}}, "method.x.method.init"),
        ({"training.steps": {"times": [0, 1]}}, "`times` has 0; it must be more than 0"),
    ],
)
def test_a_wrong_space_is_named(axes: dict[str, Any], line: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        load_space(space_file(tmp_path, **axes))
    assert line in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "artifact_kb",
        "size < 3",
        "artifact_kb < many",
        "artifact_kb<.",
        "seconds<1.2.3",
        "seconds<0",
    ],
)
def test_a_wrong_constraint_is_named(text: str) -> None:
    with pytest.raises(UserError, match="constraint"):
        Constraint.parse(text)


def test_without_development_examples_there_is_no_search(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="it reads no test set"):
        search(QUICKSTART, budget=1, out=tmp_path, overrides=["task.data.dev=null"])


class Killed(BaseException):
    """What stands for SIGKILL: nothing of the search comes after it."""


def test_a_finished_run_of_a_search_that_was_killed_counts(
    planted: list[Recipe], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    space = load_space(space_file(tmp_path, **{"method.length": {"low": 30, "high": 50}}))
    options: dict[str, Any] = {"budget": 3600, "out": tmp_path / "out", "space": space}

    def killed(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Runner, "_tell", killed)
        with pytest.raises(Killed):
            search(QUICKSTART, **options)
    outcome = search(QUICKSTART, trials=2, constraints=["artifact_kb < 45"], **options)
    assert [recipe.method.length == 40 for recipe in planted] == [True, False]
    first, second = outcome.trials
    assert (first["own"], first["state"], second["own"]) == (True, "complete", False)
    figures = json.loads((tmp_path / "out" / "runs" / "0000" / "metrics.json").read_text("utf-8"))
    assert first["value"] == figures["prompt"]["all"]["bleu"]
    assert first["costs"]["artifact_kb"] == 40
    assert first["fits"]


def test_killed_runs_count_in_the_budget(
    planted: list[Recipe], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    space = load_space(space_file(tmp_path, **{"method.length": {"low": 30, "high": 50}}))

    def killed(self: Loaded, recipe: Recipe, folder: Path, *_: Any, **__: Any) -> None:
        folder.mkdir(parents=True)
        (folder / "log.jsonl").write_text("{}\n", encoding="utf-8")
        later = time.time() + 100
        os.utime(folder / "log.jsonl", (later, later))
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Loaded, "run", killed)
        patched.setattr("optuna.Trial.set_user_attr", _until_a_run(tmp_path / "out" / "runs"))
        with pytest.raises(Killed):
            search(QUICKSTART, budget=50, out=tmp_path / "out", space=space)
    outcome = search(QUICKSTART, budget=50, out=tmp_path / "out", space=space)
    (trial,) = outcome.trials
    assert trial["state"] == "fail"
    assert 90 < trial["seconds"] < 110
    assert not planted


def _until_a_run(runs: Path) -> Callable[..., None]:
    """What a trial keeps, up to the time that its run is killed."""
    from optuna import Trial

    kept = Trial.set_user_attr

    def set_user_attr(self: Trial, key: str, value: Any) -> None:
        if not runs.exists():
            kept(self, key, value)

    return set_user_attr


@pytest.mark.parametrize("end", [Stopped(signal.SIGTERM), Killed()], ids=["stopped", "killed"])
def test_runs_on_a_cluster_that_do_not_end_count_in_the_budget(
    end: BaseException, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A run that has been measured once, when the search is stopped, or killed: then nothing of
    what comes after the exception is kept."""
    space = load_space(space_file(tmp_path, **{"method.length": {"low": 30, "high": 50}}))
    with monkeypatch.context() as patched:
        patched.setattr("foreword.comparing.cluster.crew_of", lambda *_, **__: _Crew(end, patched))
        options: dict[str, Any] = {"space": space, "on": Cluster("ray://none")}
        with pytest.raises(type(end)):
            search(QUICKSTART, budget=5, out=tmp_path / "out", **options)
    outcome = search(QUICKSTART, budget=0.05, out=tmp_path / "out", space=space)
    (trial,) = outcome.trials
    assert (trial["own"], trial["state"]) == (True, "fail")
    assert trial["seconds"] >= (0.05 if isinstance(end, Killed) else 0.1)


class _Crew:
    """A crew whose only run is measured once."""

    def __init__(self, end: BaseException, patched: pytest.MonkeyPatch) -> None:
        self.end, self.patched = end, patched
        self.free, self.running = True, [0]
        self.ray = self.reports = self.take = self

    def __enter__(self) -> _Crew:
        return self

    def __exit__(self, *_: object) -> None: ...

    def begin(self, *_: object) -> None:
        self.free = False

    def remote(self) -> None:
        time.sleep(0.05)

    def get(self, _: None) -> list[tuple[int, dict[str, float]]]:
        return [(0, {"step": 1, "loss": 3.0})]

    def ended(self) -> None:
        if isinstance(self.end, Killed):
            self.patched.setattr("optuna.Trial.set_user_attr", lambda *_: None)
        time.sleep(0.05)
        raise self.end


TINY = [
    "training.steps=4",
    "training.batch_size=2",
    "training.evaluate_every=2",
    "task.limits.train=8",
    "task.limits.dev=2",
    "decoding.max_new_tokens=3",
]


@pytest.mark.slow
def test_killed_searches_run_nothing_anew(launcher: Launcher, tmp_path: Path) -> None:
    """SIGKILL as soon as a run is finished, before or after the study knows of it, and within
    another."""
    space = space_file(tmp_path, **{"method.length": {"low": 1, "high": 60, "log": True}})
    sets = [part for line in TINY for part in ("--set", line)]
    words = ["search", str(QUICKSTART), "--space", str(space), "--device", "cpu", *sets]
    words += ["--metric", "loss", "--budget", "10m", "--runs", "4", "--out", "out"]
    runs = tmp_path / "out" / "runs"
    for awkward in ("0000/metrics.json", "0001/log.jsonl"):
        started = launcher.start(tmp_path, words)
        while not (runs / awkward).exists():
            assert not started.wait(0.001), started.printed()
        assert started.end(signal.SIGKILL) == -signal.SIGKILL
    finished = {file: file.stat().st_mtime_ns for file in runs.glob("*/metrics.json")}
    assert finished
    launcher.run(tmp_path, words)
    assert all(file.stat().st_mtime_ns == before for file, before in finished.items())
    report = json.loads((tmp_path / "out" / "search.json").read_text(encoding="utf-8"))
    trials = report["trials"]
    assert [trial["own"] for trial in trials] == [True, False, False, False]
    assert all(trial["seconds"] > 0 for trial in trials)
    for trial in trials:
        done = (runs / f"{trial['run'] - 1:04d}" / "metrics.json").exists()
        assert (trial["state"] == "complete") == done


@pytest.mark.slow
def test_real_runs_end_in_a_recipe_that_runs(tmp_path: Path) -> None:
    small = [
        "training.steps=2",
        "training.evaluate_every=1",
        "task.limits.train=8",
        "task.limits.dev=3",
        "decoding.max_new_tokens=4",
        f"task.data.test={tmp_path / 'not-there.jsonl'}",
    ]
    space = load_space(space_file(tmp_path, **{"method.length": {"low": 1, "high": 3}}))
    outcome = search(
        QUICKSTART,
        budget=600,
        trials=2,
        out=tmp_path / "out",
        metric="chrf",
        space=space,
        overrides=small,
        device="cpu",
    )
    assert outcome.trials[0]["state"] == "complete"
    assert outcome.trials[1]["state"] in ("complete", "pruned")
    assert outcome.best is not None
    report = json.loads((tmp_path / "out" / "search.json").read_text(encoding="utf-8"))
    assert report["best"] in (1, 2)
