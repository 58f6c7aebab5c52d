"""A recipe's `task.data`: what it refuses, and what it tells the readers."""

from __future__ import annotations

import inspect
import json
from typing import Any

import pytest

from foreword.data import read_data, read_examples
from foreword.errors import RecipeError
from foreword.recipe import Recipe, parse_recipe, recipe_schema


def recipe(**data: Any) -> Recipe:
    return parse_recipe(
        {
            "version": 1,
            "name": "x",
            "backbone": "foreword/mini",
            "task": {"data": {"format": "jsonl", **data}},
            "method": "prefix-tuning",
        }
    )


def test_what_a_reader_is_told_is_what_it_takes() -> None:
    options = recipe(label="kind", group="g").task.data.options("dev")
    assert set(options) < set(inspect.signature(read_data).parameters)
    assert (options["label"], options["group"], options["sections"]) == ("kind", "g", ())
    assert len(
        read_examples("foreword/fieldguide/dev", "jsonl", **recipe().task.data.options("dev"))
    )


def test_each_split_has_its_documents() -> None:
    only = {"train": {"sections": ["world", "uk"]}, "test": {"ids": "sport.txt"}}
    data = recipe(format="xsum", only=only).task.data
    assert data.options("train")["sections"] == ("world", "uk")
    assert data.options("dev")["sections"] == ()
    assert data.options("test")["ids"] == "sport.txt"
    assert parse_recipe(recipe(format="xsum", only=only).model_dump(mode="json")).task.data == data


@pytest.mark.parametrize("amount", [872, 0.1, 1])
def test_hold_out(amount: float) -> None:
    assert recipe(train="x", hold_out=amount).task.data.hold_out == amount


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ({"hold_out": 0}, "task.data.hold_out: must be more than 0, found 0"),
        ({"hold_out": 1.5}, "task.data.hold_out: expected a whole number, or a share below 1"),
        ({"hold_out": "x"}, "task.data.hold_out: expected a number, found 'x'"),
        ({"hold_out": 5, "dev": "d"}, "task.data: give either `dev` or `hold_out`"),
        ({"only": {"dev": {}}}, "task.data: `only` is for `format: xsum`"),
        ({"tags": 4}, "task.data: `words` and `tags` are for `format: conll`"),
        ({"format": "conll", "tags": 0}, "task.data.tags: must be at least 1, found 0"),
        (
            {"format": "squad", "label": "x"},
            "task.data: `label` is for the formats jsonl, csv, tsv, parquet",
        ),
        (
            {"format": "xsum", "only": {"train": {"section": ["uk"]}}},
            "task.data.only.train.section: no such name (did you mean 'sections'?)",
        ),
        (
            {"format": "xsum", "only": {"train": {"sections": "uk"}}},
            "task.data.only.train.sections: expected a list, found 'uk'",
        ),
        ({"format": "sqad"}, "task.data.format: 'sqad' is not known (did you mean 'squad'?)"),
    ],
)
def test_mistakes(data: dict[str, Any], line: str) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe(**data)
    assert caught.value.problems == (line,)


def test_a_metric_that_there_is_not() -> None:
    with pytest.raises(RecipeError, match=r"'acuracy' is not known \(did you mean 'accuracy'\?\)"):
        parse_recipe(recipe().model_dump(mode="json"), ["task.metrics=[acuracy]"])


def test_the_schema_lists_the_names() -> None:
    data = recipe_schema()["$defs"]["DataSpec"]["properties"]
    assert "squad" in data["format"]["enum"]
    assert "squad: SQuAD JSON" in data["format"]["description"]
    metrics = recipe_schema()["$defs"]["TaskSpec"]["properties"]["metrics"]
    assert '"entity_f1"' in json.dumps(metrics)
