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


@pytest.mark.slow
def test_it_learns(recipe: dict[str, Any], mini: Backbone, tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", "train", ROWS)
    write(tmp_path / "dev.jsonl", "dev", 20)
    recipe["backbone"] = "foreword/mini"
    files = {split: str(tmp_path / f"{split}.jsonl") for split in ("train", "dev")}
    recipe["task"]["data"] |= files
    recipe["decoding"] = {"max_new_tokens": 48}
    run = foreword.train(recipe, out=tmp_path / "run", backbone=mini, device="cpu")
    scores = {name: run.metrics[name]["all"]["bleu"] for name in ("backbone", "prompt")}
    assert scores["prompt"] > max(8, 4 * scores["backbone"])


def test_the_page_on_choosing_has_the_rates_that_messages_name() -> None:
    from foreword.runs.cautions import DELTAS, EMBEDDINGS, HEAD

    page = (ROOT / "docs/choosing.md").read_text(encoding="utf-8")
    for wants in (*KEYS_VALUES.values(), *EMBEDDINGS.values(), *DELTAS.values(), HEAD):
        assert f"| {wants.what} |" in page
        line = next(line for line in page.splitlines() if line.startswith(f"| {wants.what} |"))
        assert f"| {wants.rates} |" in line
