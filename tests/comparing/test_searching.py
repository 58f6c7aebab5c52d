"""A search finds what was planted, goes on where it was stopped, and reads no test set."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from foreword.comparing.executing import Loaded
from foreword.comparing.grid import written_changes
from foreword.comparing.searching import search
from foreword.comparing.space import Range, load_space, usual_space
from foreword.comparing.trials import Constraint
from foreword.errors import RecipeError, UserError
from foreword.recipe import Recipe, load_recipe

QUICKSTART = Path(__file__).resolve().parents[2] / "recipes" / "quickstart.yaml"


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
    file.write_text(yaml.safe_dump(axes), encoding="utf-8")
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
        trials=40,
        out=tmp_path / "out",
        space=space,
        constraints=["artifact_kb < 20"],
    )
    assert outcome.best is not None
    assert outcome.best.method.length < 20
    assert 1e-3 < outcome.best.training.learning_rate < 1e-1
    assert outcome.best.task.data.test is not None
    assert all(recipe.task.data.test is None for recipe in planted)
    assert len(planted) == 40
    assert sum(outcome.importances.values()) == pytest.approx(1)
    assert (tmp_path / "out" / "best.yaml").exists()


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
    lengths = [trial["changes"]["method.length"] for trial in outcome.ranked]
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


@pytest.mark.parametrize("name", ["quickstart", "rate"])
def test_shipped_spaces_hold_their_recipes(name: str) -> None:
    recipe = load_recipe(QUICKSTART)
    space = load_space(QUICKSTART.parents[1] / "spaces" / f"{name}.yaml").around(recipe)

    def made(changes: Mapping[str, Any]) -> Recipe:
        return load_recipe(QUICKSTART, written_changes(changes))

    suggested = space.own(recipe, made)
    assert suggested is not None
    assert suggested["training.learning_rate"] == pytest.approx(0.2)


def test_no_range_around_what_is_no_number(tmp_path: Path) -> None:
    space = load_space(space_file(tmp_path, **{"training.clip": {"around": 4}}))
    with pytest.raises(UserError, match=r"training\.clip: the recipe has None there"):
        space.around(load_recipe(QUICKSTART))


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


@pytest.mark.parametrize(
    ("axes", "line"),
    [
        ({"method.length": {"low": 5, "high": 5}}, "method.length: range: `low` is 5"),
        ({"a": {"low": 0, "high": 1, "log": True}}, "with `log` it must be more than 0"),
        ({"method.length": [1]}, "method.length: expected two values at least"),
        ({"method": {"x": 3}}, "method.x: expected what it sets"),
        ({"method.length": {"low": 1, "high": 2, "step": 1}}, "step"),
        ({"method.length": 3}, "expected a range {low, high} or {around}, a list, or choices"),
        ({"method.length": {"around": 1}}, "`around` is 1; it must be more than 1"),
        ({"method": {"x": {"method.length": {"around": 2, "low": 1}}}}, "method.x.method.length"),
    ],
)
def test_a_wrong_space_is_named(axes: dict[str, Any], line: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        load_space(space_file(tmp_path, **axes))
    assert line in str(caught.value)


@pytest.mark.parametrize("text", ["artifact_kb", "size < 3", "artifact_kb < many"])
def test_a_wrong_constraint_is_named(text: str) -> None:
    with pytest.raises(UserError, match="constraint"):
        Constraint.parse(text)


def test_without_development_examples_there_is_no_search(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="it reads no test set"):
        search(QUICKSTART, budget=1, out=tmp_path, overrides=["task.data.dev=null"])


@pytest.mark.slow
def test_real_runs_end_in_a_recipe_that_runs(tmp_path: Path) -> None:
    small = [
        "training.steps=2",
        "training.evaluate_every=1",
        "task.limits.train=8",
        "task.limits.dev=3",
        "decoding.max_new_tokens=4",
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
