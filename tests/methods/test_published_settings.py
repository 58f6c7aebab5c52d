"""Defaults are the settings that papers and their authors' code publish."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from foreword.methods import METHODS, axes
from foreword.recipe import load_recipe, parse_recipe

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED: dict[str, dict[str, Any]] = {
    # Li & Liang 2021, the appendix's table of hyperparameters, rows E2E and FT-top2 E2E
    "prefix-tuning": {"learning_rate": 8e-5, "epochs": 5, "batch_size": 10, "warmup": 0},
    "fine-tuning-top": {"learning_rate": 5e-5, "epochs": 5, "batch_size": 10, "warmup": 0},
    # Lester et al. 2021, section 3
    "prompt-tuning": {"learning_rate": 0.3, "steps": 30_000, "batch_size": 32},
    # the authors' code of P-Tuning (LAMA), BitFit and LoRA (its command for E2E)
    "p-tuning": {"learning_rate": 1e-5, "epochs": 100, "weight_decay": 5e-4, "clip": None},
    "bitfit": {"learning_rate": 1e-3, "epochs": 16, "batch_size": 8, "schedule": "constant"},
    "lora": {"learning_rate": 2e-4, "warmup": 500, "weight_decay": 0.01, "clip": None},
    # Houlsby et al. 2019, section 3.2, and the weight decay of the authors' code
    "adapter": {"learning_rate": 3e-4, "epochs": 20, "warmup": 0.1, "weight_decay": 0.01},
    # Devlin et al. 2019, appendix A.3, and the authors' code
    "fine-tuning": {"learning_rate": 5e-5, "epochs": 3, "batch_size": 32, "warmup": 0.1},
    # the authors' examples of cartridges
    "cartridge": {"learning_rate": 2e-2, "epochs": 1, "batch_size": 32, "schedule": "constant"},
    # Schick & Schütze 2021, appendix B: the classifier
    "pet": {"learning_rate": 1e-5, "steps": 5000, "batch_size": 16, "weight_decay": 0.01},
}
TASK = {"data": {"format": "jsonl", "train": "train.jsonl"}}
LABELLED = {"data": {"format": "jsonl", "train": "train.jsonl", "label": "label"}}
PATTERN = {"patterns": "{text} {mask}", "words": {"a": "good", "b": "bad"}}


def plain(name: str) -> Any:
    method = {"name": name, **(PATTERN if name == "pet" else {})}
    task = LABELLED if name == "pet" else TASK
    recipe = {"version": 1, "name": "x", "backbone": "m", "task": task, "method": method}
    return parse_recipe(recipe)


@pytest.mark.parametrize("name", PUBLISHED)
def test_training_defaults(name: str) -> None:
    training = plain(name).training
    assert {key: getattr(training, key) for key in PUBLISHED[name]} == PUBLISHED[name]


def test_lengths_and_starts() -> None:
    lengths = {name: plain(name).method.length for name in METHODS if name != "pet"}
    assert lengths["prefix-tuning"] == 5
    assert lengths["infix-tuning"] == lengths["embedding-only"] == 10
    assert (lengths["prompt-tuning"], lengths["p-tuning"]) == (100, 9)
    assert plain("prompt-tuning").method.init == axes.LabelsInit()


def test_e2e_as_published() -> None:
    recipe = load_recipe(ROOT / "recipes" / "generation" / "e2e.yaml")
    assert recipe.backbone.name.endswith("gpt2-medium")
    assert (recipe.method.length, recipe.method.reparameterization) == (5, axes.MLP(hidden=512))
    training = recipe.training
    assert (training.learning_rate, training.epochs, training.batch_size) == (8e-5, 5, 10)
    assert (training.warmup, training.schedule, training.loss) == (0, "linear", "sequence_sum")
    assert recipe.decoding.num_beams == 5


@pytest.mark.parametrize("name", METHODS)
def test_every_page_has_the_table(name: str) -> None:
    page = (ROOT / "docs" / "methods" / f"{name}.md").read_text(encoding="utf-8")
    assert "| | paper | authors' code | here |" in page
    assert "**Departures.**" in page
