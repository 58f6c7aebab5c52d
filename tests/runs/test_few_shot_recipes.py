"""The recipes of FewGLUE and LAMA on small files of the same format, on a masked model of ours."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from foreword.backbone import Backbone
from foreword.recipe import load_recipe
from foreword.runs import train
from foreword.runs.preview import preview

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
RAIN = {"premise": "It rained all day in the old town.", "hypothesis": "The streets were wet."}
ROWS: dict[str, list[dict[str, Any]]] = {
    "fewglue/rte.yaml": [
        {**RAIN, "label": "entailment", "idx": 1},
        {**RAIN, "hypothesis": "It snowed.", "label": "not_entailment", "idx": 2},
    ],
    "fewglue/cb.yaml": [
        {**RAIN, "label": "entailment", "idx": 1},
        {**RAIN, "hypothesis": "it was dry", "label": "contradiction", "idx": 2},
        {**RAIN, "hypothesis": "he took his hat", "label": "neutral", "idx": 3},
    ],
    "fewglue/boolq.yaml": [
        {"question": "is the sea salt", "passage": "Sea -- All of it.", "label": True, "idx": 1},
        {"question": "is snow black", "passage": "Snow -- It is white.", "label": False, "idx": 2},
    ],
    "fewglue/wic.yaml": [
        {
            "word": "back",
            "sentence1": "He came back.",
            "sentence2": f"My back {verb}.",
            "label": verb == "is back",
            "start1": 8,
            "end1": 12,
            "version": 1.1,
            "idx": number,
        }
        for number, verb in enumerate(("hurts", "is back"))
    ],
    "lama/p-tuning.yaml": [
        {"sub_label": "snow", "obj_label": "white", "predicate_id": "P462", "uuid": "a"},
        {"sub_label": "grass", "obj_label": "green", "predicate_id": "P462", "uuid": "b"},
    ],
}
READS = {
    "fewglue/rte.yaml": "It rained all day in the old town. Question: The streets were wet. ? "
    "{soft} Answer: {mask} .",
    "fewglue/cb.yaml": "It rained all day in the old town. [SEP] The streets were wet. ? {soft} "
    "answer: {mask}",
    "fewglue/boolq.yaml": "Sea -- All of it. . {soft} Question: is the sea salt ? Answer: {mask} .",
    "fewglue/wic.yaml": "He came back. [SEP] My back hurts. {soft} *back *? {mask}",
    "lama/p-tuning.yaml": "{soft:3} {mask}{soft:3} snow{soft:3}",
}
SAYS = {
    "fewglue/rte.yaml": ["entailment", "not_entailment"],
    "fewglue/cb.yaml": ["entailment", "contradiction", "neutral"],
    "fewglue/boolq.yaml": ["true", "false"],
    "fewglue/wic.yaml": ["false", "true"],
    "lama/p-tuning.yaml": ["white", "green"],
}


def settings(rows: Sequence[Mapping[str, Any]], backbone: Backbone, folder: Path) -> list[str]:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return [
        f"backbone={backbone.name}",
        *(f"task.data.{split}={file}" for split in ("train", "dev", "test")),
        "task.max_tokens=60",
        "training={steps: 2, batch_size: 2, evaluate_every: 1}",
    ]


@pytest.mark.parametrize("name", ROWS)
def test_it_runs(name: str, masked: Backbone, tmp_path: Path) -> None:
    """What it reads, and two steps: the prompt, and of FewGLUE's the backbone too, are trained."""
    overrides = settings(ROWS[name], masked, tmp_path)
    written = load_recipe(RECIPES / name)
    recipe = load_recipe(RECIPES / name, overrides)
    shown = preview(recipe, backbone=masked, device="cpu")
    assert shown.examples[0].text == READS[name]
    run = train(
        RECIPES / name,
        overrides=overrides,
        out=tmp_path / "run",
        backbone=masked,
        device="cpu",
    )
    figures = run.metrics["prompt"]["all"]
    text = (run.folder / "answers.jsonl").read_text(encoding="utf-8")
    told = [json.loads(line) for line in text.splitlines()]
    if name.startswith("lama"):
        assert set(figures) == {"precision_at_1"}
        assert written.training.best_by == "precision_at_1"
        assert [row["references"] for row in told] == [[word] for word in SAYS[name]]
    else:
        assert {"accuracy", "macro_f1"} <= set(figures)
        assert run.metrics["training"]["trained_share"] > 0.9
        assert [row["label"] for row in told] == SAYS[name]


@pytest.mark.parametrize("task", ["rte", "boolq"])
def test_pet_runs(task: str, masked: Backbone, tmp_path: Path) -> None:
    rows = ROWS[f"fewglue/{task}.yaml"]
    unlabelled = tmp_path / "unlabelled.jsonl"
    unlabelled.write_text(
        "".join(json.dumps({**row, "label": ""}) + "\n" for row in rows * 2), encoding="utf-8"
    )
    name = RECIPES / "fewglue" / f"pet-{task}.yaml"
    overrides = [
        *(one for one in settings(rows, masked, tmp_path) if "data.test" not in one),
        f"task.data.unlabelled={unlabelled}",
        "method.models=1",
        "method.steps=1",
        "method.batch_size=2",
        "training={steps: 2, batch_size: 2, best_by: null}",
    ]
    run = train(name, overrides=overrides, out=tmp_path / "run", backbone=masked, device="cpu")
    report = run.metrics["pet"]
    assert (report["labelled"], report["unlabelled"]) == (2, 4)
    assert len(report["patterns"]) == len(load_recipe(name).method.patterns)
    assert {"accuracy", "macro_f1"} <= set(run.metrics["prompt"]["all"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("one_of", "examples", "least"),
    [(5, 131, 74), pytest.param(1, 657, 77, marks=pytest.mark.soak)],
)
def test_a_chinese_backbone_knows_good_from_bad(
    one_of: int, examples: int, least: float, shared: Callable[[str], Path], tmp_path: Path
) -> None:
    """Without one label it does better than the more frequent answer (68.6 %); docs: 79.6 %, and
    78.6 % on every fifth review."""
    whole = shared("data/chnsenticorp/ChnSentiCorp_htl_all.csv")
    with whole.open(encoding="utf-8", newline="") as file:
        header, *reviews = csv.reader(file)
    data = tmp_path / "reviews.csv"
    with data.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *reviews[::one_of]])
    run = train(
        RECIPES / "understanding" / "chnsenticorp-zero-shot.yaml",
        overrides=[f"task.data.train={data}"],
        out=tmp_path / "run",
        device="cpu",
    )
    assert run.metrics["examples"] == examples
    assert run.metrics["prompt"]["all"]["accuracy"] > least
