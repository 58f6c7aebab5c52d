"""Whole runs that choose among a row's own choices: stored, loaded, measured and asked again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sklearn.metrics import f1_score
from test_resuming import Killed, Told

import foreword
from foreword.artifacts.manifest import read_manifest
from foreword.backbone import Backbone
from foreword.errors import DataError, UserError
from foreword.recipe import load_recipe
from foreword.runs import Run, train
from foreword.runs.preview import preview

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
THINGS = ("otter", "heron", "toad", "birch")
LIKELIHOOD: dict[str, Any] = {
    "input": "The {thing}",
    "target": " {reference}",
    "choice": {"normalise": "tokens"},
    "metrics": ["accuracy", "acc", "acc_norm"],
}
HEAD: dict[str, Any] = {"input": "The {thing} {choice}", "choice": {"by": "head"}}
WORDS: dict[str, Any] = {
    "input": "The {thing} {choice}? {mask}",
    "verbalizer": {"words": {"right": "Yes", "wrong": "No"}},
}
WAYS = {"likelihood": LIKELIHOOD, "head": HEAD, "words": WORDS}
PASSAGE: dict[str, Any] = {
    "input": "{passage} {question} {choice}",
    "choice": {"by": "head", "select": "several"},
    "metrics": ["accuracy", "choices_f1"],
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("choices")
    rows = [
        {"thing": thing, "one": f"is {a}", "two": f"is {b}", "label": number, "kind": thing}
        for thing in THINGS
        for number, (a, b) in enumerate((("good", "bad and old"), ("bad", "good and old")))
    ]
    for name, part in {"train": rows, "dev": rows[::3], "test": rows[1:]}.items():
        text = "".join(json.dumps(row) + "\n" for row in part)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    asked = [
        {
            "passage": {
                "text": f"The {thing} is old.",
                "questions": [
                    {
                        "question": "What is it?",
                        "answers": [
                            {"text": thing, "label": 1},
                            {"text": "a town", "label": 0},
                            {"text": f"an old {thing}", "label": 1},
                        ],
                    },
                    {"question": "Who saw it?", "answers": [{"text": "Ana", "label": 0}]},
                ],
            }
        }
        for thing in THINGS
    ]
    text = "".join(json.dumps(row) + "\n" for row in asked)
    (folder / "multirc.jsonl").write_text(text, encoding="utf-8")
    return folder


def recipe(files: Path, task: dict[str, Any], **more: Any) -> Any:
    data: dict[str, Any] = {"format": "jsonl", "choices": ["one", "two"], "group": "kind"}
    data |= {name: str(files / f"{name}.jsonl") for name in ("train", "dev", "test")}
    if "{passage}" in task["input"]:
        file = str(files / "multirc.jsonl")
        data = {"format": "multirc", "train": file, "dev": file}
    training = {"steps": 4, "batch_size": 4, "learning_rate": 0.05, **more.pop("training", {})}
    return {
        "version": 1,
        "name": "chosen",
        "backbone": "foreword/mini",
        "task": {**task, "data": data},
        "method": {"name": "p-tuning-v2", "length": 3},
        "training": training,
        **more,
    }


def start(given: Any, backbone: Backbone, out: Path, **options: Any) -> Run:
    return train(given, out=out, backbone=backbone, device="cpu", **options)


def rows(run: Run) -> list[dict[str, Any]]:
    text = (run.folder / "answers.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("way", WAYS)
def test_one_choice(way: str, tiny: Backbone, files: Path, tmp_path: Path) -> None:
    run = start(recipe(files, WAYS[way], training={"best_by": "accuracy"}), tiny, tmp_path / "run")
    manifest = read_manifest(run.artifact)
    assert (manifest.task.answer, manifest.task.choices) == ("choice", ("one", "two"))
    names = {"likelihood": "likelihood", "head": "choice_head", "words": "verbalizer"}
    assert manifest.axes["readout"] == names[way]
    assert ("backbone" in run.metrics) == (way != "head"), "what a head adds is not the backbone's"
    found = rows(run)
    hits = [row["chosen"][0] in row["right"] for row in found]
    assert run.metrics["prompt"]["all"]["accuracy"] == pytest.approx(100 * sum(hits) / len(hits))
    assert set(run.metrics["prompt"]) == {"all", *THINGS}
    for row in found:
        (number,) = row["chosen"]
        assert row["output"] == row["choices"][number]
        assert row["probability"] == max(row["probabilities"])
        assert ("log_likelihoods" in row) == (way == "likelihood")
    assert run.samples[0]["reference"] == found[0]["choices"][found[0]["right"][0]]
    prompt = foreword.load(run.folder, backbone=tiny, device="cpu")
    given = [
        {"thing": row["input"], "one": row["choices"][0], "two": row["choices"][1]} for row in found
    ]
    for row, one in zip(found, prompt.predict(given), strict=True):
        assert one.answer == row["output"]
        assert one.shares == pytest.approx(row["probabilities"], abs=1e-5)
    examples = foreword.read_examples(
        files / "test.jsonl", "jsonl", choices=("one", "two"), group="kind"
    )
    assert prompt.evaluate(examples).figures() == run.metrics["prompt"]
    with pytest.raises(DataError, match="input 1: field 'one' is missing; expected a choice"):
        prompt.predict([{"thing": "toad"}])


@pytest.mark.parametrize("way", ["head", "words"])
def test_several_choices(way: str, tiny: Backbone, files: Path, tmp_path: Path) -> None:
    task = {**PASSAGE}
    if way == "words":
        task |= {
            "input": "{passage} {question} {choice}? {mask}",
            "choice": {"select": "several"},
            "verbalizer": WORDS["verbalizer"],
        }
    told = Told()
    run = start(recipe(files, task), tiny, tmp_path / "run", progress=told)
    manifest = read_manifest(run.artifact)
    least = manifest.task.thresholds["right"]
    assert any("thresholds are tuned on the dev examples" in line for line in told.lines)
    found = rows(run)
    assert len(found) == 8
    for row in found:
        expected = [i for i, share in enumerate(row["probabilities"]) if share >= least]
        assert row["chosen"] == expected
        assert row["output"] == [row["choices"][i] for i in expected]
    flat = [
        [number in row[key] for row in found for number in range(len(row["choices"]))]
        for key in ("right", "chosen")
    ]
    scores = run.metrics["prompt"]["all"]
    assert scores["choices_f1"] == pytest.approx(100 * f1_score(*flat, zero_division=0))
    exact = sum(row["right"] == row["chosen"] for row in found) / len(found)
    assert scores["accuracy"] == pytest.approx(100 * exact)
    prompt = foreword.load(run.folder, backbone=tiny, device="cpu")
    asked = {
        "passage": "The toad is old.",
        "question": "What is it?",
        "choices": ["toad", "a town"],
    }
    (one,) = prompt.predict([asked])
    assert one.chosen == tuple(i for i, share in enumerate(one.shares) if share >= least)


@pytest.mark.parametrize(
    "method", ["hard-prompt", "cpt", "prompt-tuning", "p-tuning", "infix-tuning"]
)
def test_methods_choose_by_likelihood(
    method: str, tiny: Backbone, files: Path, tmp_path: Path
) -> None:
    task = {**LIKELIHOOD, "metrics": ["accuracy"]}
    options: dict[str, Any] = {
        "hard-prompt": {"shots": 2},
        "cpt": {"init": {"kind": "context", "shots": 2}},
        "prompt-tuning": {"length": 2},
        "infix-tuning": {"length": 2, "reparameterization": "table"},
    }
    if method == "p-tuning":
        task["input"] = "{soft:2} {thing}"
    given = recipe(files, task, method={"name": method, **options.get(method, {})})
    run = start(given, tiny, tmp_path / "run")
    assert run.metrics["prompt"]["all"]["accuracy"] is not None
    prompt = foreword.load(run.folder, backbone=tiny, device="cpu")
    examples = foreword.read_examples(
        files / "test.jsonl", "jsonl", choices=("one", "two"), group="kind"
    )
    assert prompt.evaluate(examples).figures() == run.metrics["prompt"]
    if method == "hard-prompt":
        assert prompt.manifest.task.input.count(" is ") == 2, "two rows with their right choices"


def test_the_right_choice_alone_is_learned(tiny: Backbone, files: Path, tmp_path: Path) -> None:
    task = {**LIKELIHOOD, "choice": {"objective": "generative"}}
    shown = preview(load(recipe(files, task)), count=1, device="cpu", backbone=tiny)
    (row,) = shown.examples[0].rows
    assert row.target[-1].endswith("good")
    run = start(recipe(files, task), tiny, tmp_path / "run")
    assert run.metrics["training"]["pairs"] == 8


def load(given: Any) -> Any:
    from foreword.recipe import parse_recipe

    return parse_recipe(given)


def test_a_preview_shows_every_choice(tiny: Backbone, files: Path) -> None:
    shown = preview(load(recipe(files, LIKELIHOOD)), count=2, device="cpu", backbone=tiny)
    first, second = shown.examples
    assert [row.says for row in first.rows] == [["right"], ["wrong"]]
    assert [row.says for row in second.rows] == [["right"], ["wrong"]], "the right one first"
    assert len({tuple(row.tokens) for row in first.rows}) == 1
    assert [row.target[-1].strip("Ġ") for row in second.rows] == ["old", "bad"]
    assert shown.amount is not None
    assert shown.amount.answers == 8
    shown = preview(load(recipe(files, HEAD)), count=1, device="cpu", backbone=tiny)
    assert [row.says for row in shown.examples[0].rows] == [["right"], ["wrong"]]
    assert all(len(row.read_at) == 1 for row in shown.examples[0].rows)


@pytest.mark.parametrize("way", WAYS)
def test_a_run_that_was_killed_ends_with_the_same_bits(
    way: str, tiny: Backbone, files: Path, tmp_path: Path
) -> None:
    given = recipe(files, WAYS[way], training={"checkpoint_every": 1})
    whole = start(given, tiny, tmp_path / "whole")
    with pytest.raises(Killed):
        start(given, tiny, tmp_path / "run", resume=True, progress=Told(2))
    run = start(given, tiny, tmp_path / "run", resume=True)
    for name in ("artifact/prompt.safetensors", "answers.jsonl", "log.jsonl"):
        assert (run.folder / name).read_bytes() == (whole.folder / name).read_bytes(), name


def test_choices_and_labels_of_one_batch(tiny: Backbone, files: Path, tmp_path: Path) -> None:
    bank = foreword.prompts(tiny)
    for way in WAYS:
        bank.add(way, start(recipe(files, WAYS[way]), tiny, tmp_path / way).folder)
    fields = {"thing": "toad", "one": "is good", "two": "is bad and old"}
    asked = [{"prompt": way, **fields} for way in (*WAYS, *reversed(WAYS))]
    for row, one in zip(asked, bank.predict(asked), strict=True):
        (alone,) = bank[row["prompt"]].predict([fields])
        assert one.answer == alone.answer
        assert one.shares == pytest.approx(alone.shares, abs=1e-5)
    with pytest.raises(UserError, match=r"row 1: field 'two' is missing|row 1, field 'two'"):
        bank.predict([{"prompt": "head", "thing": "toad", "one": "is good"}])


def test_a_file_without_the_columns(tiny: Backbone, files: Path, tmp_path: Path) -> None:
    given = recipe(files, LIKELIHOOD)
    given["task"]["data"]["choices"] = ["one", "three"]
    with pytest.raises(DataError, match=r"train\.jsonl, line 1: field 'three' is missing"):
        start(given, tiny, tmp_path / "run")
    given = recipe(files, LIKELIHOOD)
    given["task"]["data"]["right"] = "kind"
    with pytest.raises(DataError, match=r"line 1, field 'kind': expected a number from 0 to 1, or"):
        start(given, tiny, tmp_path / "run")
    assert not (tmp_path / "run").exists()


OF_SETS = ("multiple-choice", "regression", "several-labels")


@pytest.mark.parametrize("name", OF_SETS)
def test_the_recipes(name: str) -> None:
    recipe = load_recipe(RECIPES / "tasks" / f"{name}.yaml")
    assert Path(str(recipe.task.data.train)).parent.name == "fieldguide-sets"
