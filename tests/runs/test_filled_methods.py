"""The context that a run makes for CPT: which tokens, and what each is of."""

import json
from pathlib import Path
from typing import Any

import pytest

import foreword
from foreword.artifacts.manifest import read_manifest
from foreword.backbone import Backbone
from foreword.common.progress import Silent
from foreword.errors import RecipeError
from foreword.methods import CPT
from foreword.methods.examples import ANSWER, CONTENT, FIXED, LABEL, TEMPLATE
from foreword.recipe import parse_recipe
from foreword.runs import train as run
from foreword.runs.preparing import prepare

ROWS = [
    {"film": f"{mood} film number {i}", "mood": mood, "answer": f"It was {mood}."}
    for i in range(3)
    for mood in ("good", "bad", "long")
]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return file


def recipe(rows: Path, *, labels: bool = False, **more: Any) -> dict[str, Any]:
    data = {"format": "jsonl", "train": str(rows), "hold_out": 3, "references": "answer"}
    task: dict[str, Any] = {"data": data, "input": "Film: {film} ->", "target": " so: {reference}"}
    if labels:
        data["label"] = "mood"
        task |= {
            "input": "{film} was {mask}",
            "target": "{reference}",
            "verbalizer": {"words": {"good": "great", "bad": "awful", "long": "slow"}},
        }
    return {
        "version": 1,
        "name": "context",
        "backbone": "foreword/mini",
        "task": {**task, **more.pop("task", {})},
        "method": {"name": "cpt", "init": {"shots": 2}, **more.pop("method", {})},
        "training": {"steps": 3, "batch_size": 2, "learning_rate": 0.01, "best_by": None},
        "evaluation": {"backbone_alone": False},
        "decoding": {"max_new_tokens": 4},
        **more,
    }


def context(given: dict[str, Any], backbone: Backbone) -> tuple[CPT, list[list[tuple[str, int]]]]:
    """The method, and of each example the tokens, joined where they are of one type."""
    method = prepare(parse_recipe(given), "cpu", backbone, Silent()).recipe.method
    assert isinstance(method, CPT)
    shown: list[list[tuple[str, int]]] = [[]]
    for token, kind in zip(method.init.tokens, method.init.types, strict=True):
        if token == backbone.tokens.eos_id:
            assert kind == FIXED
            shown.append([])
            continue
        example, of = divmod(kind - 1, 4)
        assert example == len(shown) - 1
        text, of = backbone.tokens.text([token]), of + 1
        if shown[-1] and shown[-1][-1][1] == of:
            shown[-1][-1] = shown[-1][-1][0] + text, of
        else:
            shown[-1].append((text, of))
    assert shown.pop() == []
    return method, shown


def test_the_context_of_a_text_to_write(rows, mini) -> None:
    method, shown = context(recipe(rows), mini)
    assert len(shown) == 2
    assert method.length == len(method.init.tokens) == len(method.init.types)
    for example in shown:
        (colon, film, arrow, so, answer) = example
        assert (colon, arrow) == (("Film:", TEMPLATE), (" ->", TEMPLATE))
        assert so == (" so:", ANSWER)
        row = next(row for row in ROWS if f" {row['film']}" == film[0])
        assert film[1] == CONTENT
        assert answer == (f" {row['answer']}", LABEL)


def test_the_context_of_label_words(rows, mini) -> None:
    _, shown = context(recipe(rows, labels=True), mini)
    for film, was, word in shown:
        row = next(row for row in ROWS if row["film"] == film[0])
        assert (film[1], was) == (CONTENT, (" was", TEMPLATE))
        told = {"good": " great", "bad": " awful", "long": " slow"}[row["mood"]]
        assert word == (told, LABEL)


def test_a_run_keeps_its_context(rows, mini, tmp_path) -> None:
    given = recipe(rows)
    done = run(given, backbone=mini, out=tmp_path / "run", device="cpu")
    manifest = read_manifest(done.artifact)
    method, _ = context(given, mini)
    assert manifest.method == method
    loaded = foreword.load(done.artifact, backbone=mini)
    assert loaded.model.placement.length == method.length
    start = mini.embeddings(list(method.init.tokens))
    assert 0 < (loaded.model.rows() - start).norm() < 0.2 * method.length
    assert done.metrics["training"]["initial_fit_error"] == 0.0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"method": {"init": {"shots": 99}}}, "method.init.shots: 99 are asked for, but there are"),
        ({"method": {"length": 9}}, "method.length: 2 examples have .* tokens, but it allows 9"),
        (
            {"task": {"input": [{"role": "user", "content": "{film}"}]}},
            "task.input: messages, or two texts, cannot be shown with an answer",
        ),
        (
            {"method": {"init": {"tokens": [1, 2], "types": [1]}}},
            "2 `tokens`, but 1 `types`; give each token one",
        ),
        (
            {"method": {"init": {"tokens": [1, 2], "types": [1, 4]}, "length": 3}},
            "`length` is 3, but `init` has 2 tokens",
        ),
    ],
)
def test_what_makes_no_context_is_refused(rows, mini, more, message) -> None:
    with pytest.raises(RecipeError, match=message):
        context(recipe(rows, **more), mini)


def test_a_head_has_no_place_in_a_context(rows, mini) -> None:
    given = recipe(rows, labels=True)
    del given["task"]["verbalizer"]
    given["task"]["input"] = "{film}"
    with pytest.raises(RecipeError, match="not shown with an input as one text"):
        context(given, mini)
