"""The recipe that README gives for data of one's own learns from 300 rows on a small model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import foreword
from foreword.backbone import Backbone
from foreword.data import linearise
from foreword.recipe import parse_recipe
from foreword.runs.cautions import KEYS_VALUES, cautions

ROOT = Path(__file__).parents[2]
ROWS = 300


@pytest.fixture
def recipe() -> dict[str, Any]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(.*?)```", text, re.S)
    found: dict[str, Any] = yaml.safe_load(block)
    return found


def write(file: Path, split: str, count: int) -> None:
    """Rows with the columns that the recipe names."""
    examples = foreword.read_examples(f"foreword/fieldguide/{split}", "jsonl")[:count]
    rows = [
        {"document": linearise(e.fields["record"]), "summary": e.references[0]} for e in examples
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_nothing_is_said_against_it(recipe: dict[str, Any]) -> None:
    assert cautions(parse_recipe(recipe), ROWS) == []
    for name in ("method", "training"):
        shipped = yaml.safe_load((ROOT / "recipes/own-data.yaml").read_text(encoding="utf-8"))
        assert shipped[name] == recipe[name]


@pytest.fixture
def runnable(recipe: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """The recipe with files and a backbone that are here."""
    write(tmp_path / "train.jsonl", "train", ROWS)
    write(tmp_path / "dev.jsonl", "dev", 20)
    recipe["backbone"] = "foreword/mini"
    files = {split: str(tmp_path / f"{split}.jsonl") for split in ("train", "dev")}
    recipe["task"]["data"] |= files
    recipe["decoding"] = {"max_new_tokens": 48}
    return recipe


@pytest.mark.soak
def test_it_learns_to_answer(runnable: dict[str, Any], mini: Backbone, tmp_path: Path) -> None:
    run = foreword.train(runnable, out=tmp_path / "run", backbone=mini, device="cpu")
    scores = {name: run.metrics[name]["all"]["bleu"] for name in ("backbone", "prompt")}
    assert scores["prompt"] > max(8, 4 * scores["backbone"])


@pytest.mark.slow
def test_it_learns_from_the_first_epoch(
    runnable: dict[str, Any], mini: Backbone, tmp_path: Path
) -> None:
    """The loss falls by a nat a token (from 4.3 to 3.3) where nothing but the epochs is changed."""
    runnable["training"]["epochs"] = 1
    runnable["evaluation"] = {"backbone_alone": False}
    runnable["decoding"] = {"max_new_tokens": 1}
    foreword.train(runnable, out=tmp_path / "run", backbone=mini, device="cpu")
    lines = (tmp_path / "run/log.jsonl").read_text(encoding="utf-8").splitlines()
    first, *_, last = [json.loads(line) for line in lines]
    assert last["evaluation"]["step"] == 38
    assert last["evaluation"]["loss"] < first["loss"] - 0.8


def test_the_page_on_choosing_has_the_rates_that_messages_name() -> None:
    from foreword.runs.cautions import DELTAS, EMBEDDINGS, HEAD

    page = (ROOT / "docs/choosing.md").read_text(encoding="utf-8")
    for wants in (*KEYS_VALUES.values(), *EMBEDDINGS.values(), *DELTAS.values(), HEAD):
        assert f"| {wants.what} |" in page
        line = next(line for line in page.splitlines() if line.startswith(f"| {wants.what} |"))
        assert f"| {wants.rates} |" in line
