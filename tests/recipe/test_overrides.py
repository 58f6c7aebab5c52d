"""Overrides: what takes whose place, and what is said of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from foreword.errors import RecipeError, named_as_flags
from foreword.recipe import HeadSpec, Recipe, load_recipe, parse_recipe
from foreword.recipe.spec import EXCLUSIVE
from foreword.runs.run import _recipe

DATA = {"format": "csv", "train": "train.csv", "dev": "dev.csv", "label": "label"}
RECIPE: dict[str, Any] = {
    "version": 1,
    "name": "overridden",
    "backbone": "foreword/mini",
    "task": {"data": DATA},
    "method": "prefix-tuning",
}
WORDS = {"words": {"yes": ["good"], "no": ["bad"]}}


def overridden(raw: dict[str, Any], *overrides: str) -> tuple[Recipe, list[str]]:
    """The recipe, and what was said while it was read."""
    said: list[str] = []
    return parse_recipe({**RECIPE, **raw}, overrides, say=said.append), said


@pytest.mark.parametrize(
    ("raw", "override", "gone", "said"),
    [
        ({"training": {"epochs": 3}}, "training.steps=60", "training.epochs", "3"),
        ({"training": {"steps": 60}}, "training.epochs=0.5", "training.steps", "60"),
        ({}, "task.data.hold_out=0.1", "task.data.dev", '"dev.csv"'),
        ({"task": {"data": DATA, "head": {"hidden": 3}}}, f"task.verbalizer={json.dumps(WORDS)}",
         "task.head", '{"hidden": 3}'),
        ({"task": {"data": DATA, "verbalizer": WORDS}}, "task.head.hidden=3", "task.verbalizer",
         json.dumps(WORDS)),
    ],
)  # fmt: skip
def test_the_later_word_wins_and_it_is_said(
    raw: dict[str, Any], override: str, gone: str, said: str
) -> None:
    recipe, lines = overridden(raw, override)
    assert lines == [f"override {override}: takes the place of {gone}={said}"]
    value: Any = recipe
    for name in gone.split("."):
        value = getattr(value, name)
    assert value == (HeadSpec() if gone == "task.head" else None)


def test_every_two_fields_that_exclude_each_other_are_refused_in_a_recipe() -> None:
    both: dict[str, dict[str, Any]] = {
        "training.epochs": {"training": {"epochs": 1, "steps": 1}},
        "task.data.dev": {"task": {"data": {**DATA, "hold_out": 2}}},
        "task.head": {"task": {"data": DATA, "head": {"hidden": 3}, "verbalizer": WORDS}},
    }
    assert set(both) == {first for first, _ in EXCLUSIVE}
    for raw in both.values():
        with pytest.raises(RecipeError, match="give either"):
            parse_recipe({**RECIPE, **raw})


def test_the_last_of_several_overrides_wins() -> None:
    recipe, said = overridden(
        {"training": {"epochs": 3}}, "training.steps=60", "training.epochs=2", "training.steps=7"
    )
    assert (recipe.training.steps, recipe.training.epochs) == (7, None)
    assert [line.rpartition(" ")[2] for line in said] == [
        "training.epochs=3",
        "training.steps=60",
        "training.epochs=2",
    ]


@pytest.mark.parametrize(("null", "kept"), [("steps", "epochs"), ("epochs", "steps")])
def test_null_takes_away_its_own_field_alone(null: str, kept: str) -> None:
    recipe, said = overridden({"training": {kept: 7}}, f"training.{null}=null")
    assert getattr(recipe.training, kept) == 7
    assert getattr(recipe.training, null) is None
    assert said == []


def test_null_does_not_delete_a_development_file() -> None:
    assert overridden({}, "task.data.hold_out=null")[0].task.data.dev == "dev.csv"


def test_a_draw_of_each_label_goes_with_a_limit() -> None:
    task = {"data": DATA, "limits": {"per_label": 16}}
    limits = overridden({"task": task}, "task.limits.train=5")[0].task.limits
    assert (limits.per_label, limits.train) == (16, 5)


@pytest.mark.parametrize("file", sorted(Path("recipes").glob("**/*.yaml")), ids=str)
def test_every_recipe_takes_a_limit(file: Path) -> None:
    limits = load_recipe(file, [f"task.limits.{s}=5" for s in ("train", "dev", "test")]).task.limits
    assert (limits.train, limits.dev, limits.test) == (5, 5, 5)


def test_overrides_of_a_recipe_keep_the_training_it_was_made_with() -> None:
    """Its `training` may be a default of the class, and not of the method."""
    plain = parse_recipe(RECIPE)
    made = Recipe(
        version=1, name="made", backbone=plain.backbone, task=plain.task, method=plain.method
    )
    assert made.training.steps == 1000
    assert _recipe(made, ["seed=3"], print).training == made.training


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("task.input={text} of {colour}", "the value is not valid YAML (line 1, column 8: "),
        ("task.input=@a", "the value is not valid YAML (line 1, column 1: "),
        ("task.input=Review {text} #1", "YAML takes what stands after # for a comment; "),
        ("task.input={text}", "task.input: expected a text, found a mapping; "),
        ("task.target=Answer: {reference}", "task.target: expected a text, found a mapping; "),
        ("name=1e5", "name: expected a text, found 100000.0; "),
    ],
)
def test_a_text_that_yaml_takes_for_something_else_is_told_how_to_quote_it(
    override: str, said: str
) -> None:
    path, _, text = override.partition("=")
    quoted = f'{path}="{text}"'
    with pytest.raises(RecipeError) as caught, named_as_flags():
        overridden({}, override)
    (line,) = caught.value.problems
    assert said in line
    assert line.endswith(f"something else needs quotes of its own: --set '{quoted}'")
    with pytest.raises(RecipeError) as caught:
        overridden({}, override)
    assert "--" not in str(caught.value)
    assert str(caught.value).endswith(f": '{quoted}'")
    recipe: Any = overridden({}, quoted)[0]
    for name in path.split("."):
        recipe = getattr(recipe, name)
    assert recipe == text


def test_quoted_texts_may_have_hashes() -> None:
    for value in ('"a #b"', "'a #b'", "|-\n  a #b"):
        assert overridden({}, f"task.input={value}")[0].task.input == "a #b"
    assert overridden({}, "task.input=a#b")[0].task.input == "a#b"
