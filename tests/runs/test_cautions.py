"""Settings that cannot work are said before a training begins, those of shipped recipes are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from foreword.recipe import load_recipe, parse_recipe
from foreword.runs.cautions import cautions

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))
TEXT = {"format": "jsonl", "train": "train.jsonl", "dev": "dev.jsonl"}
LABEL = {**TEXT, "label": "category"}


def said(method: Any, training: dict[str, Any], data: Any = TEXT, rows: int = 300) -> list[str]:
    recipe = {"version": 1, "name": "run", "backbone": "foreword/mini", "task": {"data": data}}
    return cautions(parse_recipe({**recipe, "method": method, "training": training}), rows)


def table(**training: Any) -> list[str]:
    """What is said of a plain table of keys and values."""
    method = {"name": "prefix-tuning", "reparameterization": "table"}
    return said(method, {"steps": 60, "learning_rate": 0.1, **training})


@pytest.mark.parametrize("file", RECIPES, ids=[file.stem for file in RECIPES])
def test_nothing_is_said_of_shipped_recipes(file: Path) -> None:
    assert cautions(load_recipe(file), 100_000) == []


def test_a_warm_up_longer_than_the_training() -> None:
    (line,) = said("lora", {"steps": 60, "learning_rate": 2e-3})
    assert line == (
        "training.warmup: the rate rises for 500 steps, the default of lora, but the training has "
        "60, so it ends at 12% of training.learning_rate; give a share of the steps, such as "
        "`warmup: 0.1`"
    )
    assert said("lora", {"steps": 60, "learning_rate": 2e-3, "warmup": 0.1}) == []
    (line,) = table(warmup=40)
    assert line.startswith("training.warmup: the rate rises for 40 of 60 steps; ")


def test_the_training_rows_decide_how_many_steps_an_epoch_has() -> None:
    training = {"epochs": 5, "batch_size": 10, "learning_rate": 2e-3, "warmup": 100}
    assert [line[:16] for line in said("lora", training, rows=300)] == ["training.warmup:"]
    assert said("lora", training, rows=3000) == []


@pytest.mark.parametrize("every", [60, 200])
def test_evaluations_that_come_too_late(every: int) -> None:
    (line,) = table(evaluate_every=every, patience=3)
    assert line == (
        f"training.evaluate_every: {every}, but the training has 60 steps, so it is evaluated "
        "once, after the last, and training.patience ends nothing; give a smaller number, such as 6"
    )


def test_patience_that_is_longer_than_the_training() -> None:
    (line,) = table(evaluate_every=20, patience=2)
    assert line.startswith(
        "training.patience: 2 evaluations after the best one, 20 steps from one to the next, are "
        "not over before the last of 60 steps"
    )
    assert table(evaluate_every=15, patience=2) == []


def test_a_metric_that_has_nothing_to_choose_among() -> None:
    (line,) = said("p-tuning-v2", {"steps": 600, "best_by": "accuracy"}, LABEL)
    assert line.startswith("training.best_by: `accuracy` chooses among evaluations, but there is")
    given = {"steps": 600, "best_by": "accuracy", "evaluate_every": 100}
    assert said("p-tuning-v2", given, LABEL) == []


@pytest.mark.parametrize(
    ("method", "slow", "fine"),
    [
        ({"name": "prefix-tuning", "reparameterization": "table"}, 1e-3, 0.1),
        ("prefix-tuning", 1e-6, 1e-3),
        ("prompt-tuning", 1e-3, 0.1),
        ("p-tuning", 1e-7, 1e-3),
        ("bitfit", 1e-5, 1e-2),
        ("adapter", 1e-6, 1e-3),
        ({"name": "lora", "rank": 8}, 1e-6, 1e-3),
        ("fine-tuning", 1e-8, 1e-4),
    ],
)
def test_rates_under_which_nothing_moves(method: Any, slow: float, fine: float) -> None:
    (line,) = said(method, {"steps": 60, "warmup": 0, "learning_rate": slow})
    assert line.startswith(f"training.learning_rate: {slow:g} over 60 steps moves ")
    assert said(method, {"steps": 60, "warmup": 0, "learning_rate": fine}) == []


def test_keys_and_values_of_real_words_need_not_move_far() -> None:
    method = {"name": "prefix-tuning", "reparameterization": "table"}
    training = {"steps": 60, "warmup": 0, "learning_rate": 2e-3}
    assert len(said(method, training)) == 1
    started = {**method, "init": {"kind": "activations", "examples": 4}}
    assert said(started, training) == []
    (line,) = said(started, {**training, "learning_rate": 10})
    assert line.startswith("training.learning_rate: 10 is high for ")


@pytest.mark.parametrize(
    ("method", "rate"),
    [
        ({"name": "prefix-tuning", "reparameterization": "table"}, 10),
        ({"name": "prefix-tuning"}, 0.2),
        ({"name": "prompt-tuning"}, 30),
        ("bitfit", 1),
        ("adapter", 0.1),
        ("lora", 0.1),
        ("fine-tuning", 0.1),
    ],
)
def test_rates_that_are_far_too_high(method: Any, rate: float) -> None:
    (line,) = said(method, {"steps": 60, "warmup": 0, "learning_rate": rate})
    assert line.startswith(f"training.learning_rate: {rate:g} is high for ")


def test_each_rate_is_said_by_its_own_field() -> None:
    method = {"name": "p-tuning-v2", "delta": "full"}
    training = {"steps": 60, "learning_rate": 0.1, "delta_learning_rate": 0.1}
    (line,) = said(method, training, LABEL)
    assert line.startswith(
        "training.delta_learning_rate: 0.1 is high for all weights of a backbone"
    )
    training = {"steps": 60, "learning_rate": 0.1, "head_learning_rate": 3}
    (line,) = said("p-tuning-v2", training, LABEL)
    assert line.startswith("training.head_learning_rate: 3 is high for heads")


def test_a_slow_prompt_beside_a_head_that_learns_is_not_spoken_of() -> None:
    assert said("p-tuning-v2", {"steps": 300, "learning_rate": 3e-4}, LABEL) == []


def test_nothing_is_said_where_nothing_is_trained() -> None:
    assert said("hard-prompt", {"steps": 1, "learning_rate": 1e-9}) == []
    assert cautions(load_recipe(ROOT / "recipes/quickstart.yaml"), 0) == []
