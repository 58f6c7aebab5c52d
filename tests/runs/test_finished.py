"""A finished run whose figures or answers are not what a run writes is refused by the field."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import pytest

from foreword.cli.training import _print_run
from foreword.errors import UserError
from foreword.recipe import Recipe, parse_recipe
from foreword.runs.folder import read_run

METRICS: dict[str, Any] = {
    "split": "test",
    "examples": 2,
    "truncated": 0,
    "prompt": {"all": {"accuracy": 50.0, "bleu": None}},
    "training": {"steps": 3, "trained_parameters": 7, "trained_share": 0.1, "final_loss": None},
    "pet": {
        "patterns": [{"generation": 0, "text": "{a} {mask}", "weight": 1.0, "accuracy": 50.0}],
        "labelled": 2,
        "unlabelled": 3,
        "ensemble_accuracy": 50.0,
    },
    "artifact_bytes": 1000,
}
ANSWERS: list[Any] = [
    {"input": "a", "output": "yes", "label": "no"},
    {"input": "b", "output": ["O", None], "tags": ["O", "B"]},
    {"input": "c", "output": "", "references": []},
]
JUNK: tuple[Any, ...] = (None, True, -1, 1e300, "", "x", [], ["x", 1, None], {}, {"a": {"b": 1}})


@pytest.fixture
def recipe() -> Recipe:
    data = {"format": "jsonl", "train": "a", "dev": "b"}
    return parse_recipe(
        {
            "version": 1,
            "name": "done",
            "backbone": "foreword/mini",
            "task": {"data": data},
            "method": "prompt-tuning",
        }
    )


def written(folder: Path, metrics: Any = METRICS, answers: list[Any] = ANSWERS) -> Path:
    (folder / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    lines = "".join(json.dumps(row) + "\n" for row in answers)
    (folder / "answers.jsonl").write_text(lines, encoding="utf-8")
    return folder


def test_a_finished_run_is_read(recipe: Recipe, tmp_path: Path) -> None:
    run = read_run(written(tmp_path), recipe)
    assert run.metrics == METRICS
    assert [sample["output"] for sample in run.samples] == ["yes", "O (none)", ""]
    assert [sample["reference"] for sample in run.samples] == ["no", "O B", "(none)"]


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ([], "the whole: expected a mapping, found a list"),
        ({}, "artifact_bytes: is missing"),
        ({**METRICS, "examples": "two"}, "examples: expected a whole number, found 'two'"),
        ({**METRICS, "training": None}, "training: expected a mapping, found nothing"),
        ({**METRICS, "training": {}}, "training.trained_parameters: is missing"),
        ({**METRICS, "prompt": {"all": {"bleu": "x"}}}, "prompt.all.bleu: expected a number"),
        ({**METRICS, "prompt": {"all": {"bleu": 1e300}}}, "prompt.all.bleu: must be at most 1e+15"),
        ({**METRICS, "prompt": {"all": {"bleu": "1"}}}, "prompt.all.bleu: expected a number"),
        ({**METRICS, "examples": True}, "examples: expected a whole number"),
        ({**METRICS, "artifact_bytes": -1}, "artifact_bytes: must be at least 0, found -1"),
        ({**METRICS, "pet": {"patterns": [{}]}}, "pet.patterns.0.weight: is missing"),
    ],
)
def test_odd_figures(metrics: Any, said: str, recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"metrics\.json: is damaged") as caught:
        read_run(written(tmp_path, metrics), recipe)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ([], "the whole: expected a mapping, found a list"),
        ("x", "the whole: expected a mapping, found 'x'"),
        ({"output": "x", "label": "y"}, "input: is missing"),
        (
            {"input": "x", "output": "y"},
            "has none of label, labels, number, paired, references, right, tags",
        ),
        ({"input": "x", "output": None, "label": "y"}, "output"),
        ({"input": "x", "output": {"a": 1}, "label": "y"}, "output"),
        ({"input": "x", "output": "y", "label": None}, "label: expected a text, found nothing"),
        ({"input": "x", "output": "y", "tags": [1]}, "tags.0: expected a text, found 1"),
        ({"input": "x", "output": "y", "references": "z"}, "references: expected a list"),
    ],
)
def test_odd_answers(row: Any, said: str, recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"answers\.jsonl, line 4: is damaged") as caught:
        read_run(written(tmp_path, answers=[*ANSWERS, row]), recipe)
    assert said in str(caught.value)


@pytest.mark.parametrize("name", ["metrics.json", "answers.jsonl"])
@pytest.mark.parametrize("raw", [b"\xff\xfe", b"{", b"\0", b"[" * 9999, b"1" * 9999, b'"\\ud800'])
def test_files_that_are_no_json(name: str, raw: bytes, recipe: Recipe, tmp_path: Path) -> None:
    (written(tmp_path) / name).write_bytes(raw)
    with pytest.raises(UserError, match=f"{name}.*cannot be read"):
        read_run(tmp_path, recipe)


@pytest.mark.parametrize("seed", range(40))
def test_damage_anywhere_ends_in_a_run_or_a_refusal(
    seed: int, recipe: Recipe, tmp_path: Path
) -> None:
    rng = random.Random(seed)
    metrics, answers = copy.deepcopy((METRICS, ANSWERS))
    for _ in range(rng.choice((1, 2))):
        here: Any = rng.choice((metrics, rng.choice(answers)))
        while True:
            key = rng.choice(list(here) if isinstance(here, dict) else range(len(here)))
            if not isinstance(here[key], dict | list) or not here[key] or rng.random() < 0.3:
                break
            here = here[key]
        if rng.random() < 0.3 and isinstance(here, dict):
            del here[key]
        else:
            here[key] = rng.choice(JUNK)
        if not here:
            break
    try:
        run = read_run(written(tmp_path, metrics, answers), recipe)
    except UserError as error:
        assert "is damaged" in str(error)  # noqa: PT017
    else:
        _print_run(run)
