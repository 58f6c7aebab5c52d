"""Hard prompts: what stands before the input, and that nothing is trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import foreword
from foreword.artifacts.manifest import read_manifest
from foreword.backbone import Backbone
from foreword.errors import RecipeError
from foreword.recipe import parse_recipe
from foreword.runs import Run, train
from foreword.runs.data import read_examples, state_task
from foreword.templates import Template

ROWS = [
    {"film": f"{mood} film {i} {{so}}", "mood": mood, "answer": f"It was {mood}."}
    for i in range(4)
    for mood in ("good", "bad", "long")
]
WORDS = {"good": "great", "bad": ["awful", "poor"], "long": "slow"}


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return file


def recipe(rows: Path, *, labels: bool, **more: Any) -> dict[str, Any]:
    data = {"format": "jsonl", "train": str(rows), "hold_out": 3, "references": "answer"}
    task: dict[str, Any] = {"data": data, "input": "{film} ->"}
    if labels:
        data["label"] = "mood"
        task |= {"input": "{film} was {mask}", "verbalizer": {"words": WORDS}}
    return {
        "version": 1,
        "name": "hard",
        "backbone": "foreword/mini",
        "task": {**task, **more.pop("task", {})},
        "decoding": {"max_new_tokens": 4},
        **more,
    }


def shown(given: dict[str, Any]) -> Any:
    parsed = parse_recipe(given)
    return state_task(parsed, read_examples(parsed)).input


def run(given: dict[str, Any], backbone: Backbone, out: Path) -> Run:
    return train(given, backbone=backbone, out=out, device="cpu")


def test_without_shots_the_input_is_the_template(rows: Path) -> None:
    assert shown(recipe(rows, labels=False, method="hard-prompt")) == "{film} ->"


def test_each_label_has_its_turn(rows: Path) -> None:
    method = {"name": "hard-prompt", "shots": 3, "separator": " ; "}
    text = shown(recipe(rows, labels=True, method=method))
    *before, last = text.split(" ; ")
    assert last == "{film} was {mask}"
    assert sorted(line.split()[-1] for line in before) == ["awful", "great", "slow"]
    rendered = Template.parse(text).render({"film": "mine"})
    assert rendered.count("{so}") == 3  # braces of the data are words here
    assert rendered.endswith(" ; mine was {mask}")


def test_the_seed_decides_and_the_held_out_stay_unseen(rows: Path) -> None:
    method = {"name": "hard-prompt", "shots": 4}
    given = recipe(rows, labels=False, method=method)
    texts = {shown({**given, "seed": seed}) for seed in (0, 0, 1, 2)}
    assert len(texts) == 3
    parsed = parse_recipe(given)
    examples = read_examples(parsed)
    for example in examples.dev:
        assert Template.parse(str(example.fields["film"]).replace("{", "{{").replace("}", "}}"))
        assert f"{example.fields['film']} ->{example.references[0]}" not in Template.parse(
            shown(given)
        ).render({"film": ""})


def test_messages_become_turns(rows: Path) -> None:
    messages = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "How was {film}?"},
    ]
    method = {"name": "hard-prompt", "shots": 2}
    first, *turns, last = shown(recipe(rows, labels=False, task={"input": messages}, method=method))
    assert (first.role, last.content) == ("system", "How was {film}?")
    assert [turn.role for turn in turns] == ["user", "assistant"] * 2
    assert all("{{so}}" in turn.content for turn in turns[::2])


def test_it_runs_stores_its_shots_and_trains_nothing(
    rows: Path, mini: Backbone, tmp_path: Path
) -> None:
    given = recipe(rows, labels=True, method={"name": "hard-prompt", "shots": 2})
    done = run(given, mini, tmp_path / "labels")
    assert done.metrics["training"]["trained_parameters"] == 0
    manifest = read_manifest(done.artifact)
    assert str(manifest.task.input).count("\n\n") == 2
    prompt = foreword.load(done.folder, backbone=mini, device="cpu")
    answers = [json.loads(x) for x in (done.folder / "answers.jsonl").read_text().splitlines()]
    fields = [{"film": row["input"]} for row in answers]
    assert [said.answer for said in prompt.predict(fields)] == [row["output"] for row in answers]

    written = run(
        recipe(rows, labels=False, method={"name": "hard-prompt", "shots": 2}),
        mini,
        tmp_path / "text",
    )
    again = foreword.load(written.folder, backbone=mini, device="cpu")
    assert again.generate(["x"])


@pytest.mark.parametrize(
    ("labels", "task", "method", "message"),
    [
        (False, {}, {"shots": 20}, "method.shots: 20 are asked for, but there are"),
        (True, {"second": "{answer}"}, {"shots": 1}, "method.shots: has no place beside"),
        (True, {"verbalizer": None, "input": "{film}"}, {"shots": 1}, "trains nothing"),
        (True, {"verbalizer": {"words": {"good": "a", "bad": "b"}}}, {"shots": 9}, "no word for"),
    ],
)
def test_mistakes(
    labels: bool, task: dict[str, Any], method: dict[str, Any], message: str, rows: Path
) -> None:
    given = recipe(rows, labels=labels, task=task, method={"name": "hard-prompt", **method})
    with pytest.raises(RecipeError) as caught:
        shown(given)
    assert message in str(caught.value)
