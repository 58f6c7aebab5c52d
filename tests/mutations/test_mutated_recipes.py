"""Damaged recipes end in a clear RecipeError or in a recipe, never in a traceback."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from mutators import damaged_bytes, damaged_tree, seeds

from foreword.errors import RecipeError
from foreword.recipe import Recipe, load_recipe, parse_recipe

QUICKSTART = Path(__file__).resolve().parents[2] / "recipes" / "quickstart.yaml"
LAUGHS = "a0: &a0 [x, x]\n" + "".join(
    f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}, *a{i - 1}]\n" for i in range(1, 40)
)
HAND_MADE = {
    "nothing": "",
    "only a comment": "# nothing\n",
    "a text": "hello",
    "a number": "7",
    "a list": "- a\n- b\n",
    "two documents": "version: 1\n---\nversion: 1\n",
    "billion laughs": LAUGHS,
    "a mapping of itself": "&a {name: *a}",
    "merged keys": "a: &a {x: 1}\nb: {<<: *a}\n",
    "python tag": "name: !!python/object/apply:os.system ['true']\n",
    "unknown tag": "name: !secret x\n",
    "empty integer": "seed: !!int ''\n",
    "no such day": "name: 2020-99-99\n",
    "no boolean": "name: !!bool perhaps\n",
    "no timestamp": "name: !!timestamp never\n",
    "binary": "name: !!binary aGVsbG8=\n",
    "a set": "name: !!set {a, b}\n",
    "an ordered map": "name: !!omap [a: 1]\n",
    "a list as a key": "? [a, b]\n: 1\n",
    "a number as a key": "1: 2\n",
    "a null as a key": "~: 2\n",
    "unclosed": "task: {data: [\n",
    "tabs": "task:\n\tdata: 1\n",
    "deep": "a: " + "[" * 5_000,
    "deep and closed": "a: " + "[" * 150 + "]" * 150,
    "long number": f"seed: {'9' * 6000}\n",
    "long hexadecimal number": f"seed: 0x{'f' * 6000}\n",
    "surrogate": 'name: "\\ud800"\n',
    "control character": "name: a\x07b\n",
    "long line": f"name: {'x' * 1_000_000}\n",
}


@pytest.fixture(scope="module")
def base() -> str:
    return QUICKSTART.read_text(encoding="utf-8")


def verdict(file: Path) -> bool:
    """Whether the recipe was refused; fails unless that was done clearly."""
    started = time.process_time()
    try:
        recipe = load_recipe(file)
    except RecipeError as error:
        refusal = error
    else:
        refusal = None
    assert time.process_time() - started < 2
    if refusal is not None:
        assert refusal.problems
        assert str(file) in str(refusal)
        for line in refusal.problems:
            check_line(line)
        return True
    assert parse_recipe(yaml.safe_load(recipe.to_yaml())) == recipe
    return False


def check_line(line: str) -> None:
    assert len(line) < 1000, line
    assert "\n" not in line, line
    for word in ("pydantic", "Spec", "nput should", "instance of", "dictionary", "{max", "{min"):
        assert word not in line, line
    whole = "is not valid YAML: ", "is not UTF-8 text", "must be a mapping", "cannot be read: "
    if line.startswith(whole):
        return
    field, _, what = line.partition(": ")
    assert what, line
    top = field.split(".")[0]
    assert top in Recipe.model_fields or "no such name" in what, line


@pytest.mark.parametrize("seed", seeds(80))
def test_trees(seed: int, base: str, tmp_path: Path) -> None:
    tree: Any = yaml.safe_load(base)
    tree["training"]["betas"] = [0.9, 0.999]
    tree["method"] |= {"reparameterization": {"kind": "mlp"}, "init": {"kind": "random"}}
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(damaged_tree(seed, tree)), encoding="utf-8")
    verdict(file)


@pytest.mark.parametrize("seed", seeds(90))
def test_bytes(seed: int, base: str, tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_bytes(damaged_bytes(seed, base.encode()))
    verdict(file)


@pytest.mark.parametrize("name", HAND_MADE)
def test_by_hand(name: str, tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(HAND_MADE[name], encoding="utf-8")
    assert verdict(file)


@pytest.mark.parametrize("name", HAND_MADE)
def test_values_given_with_set(name: str) -> None:
    with pytest.raises(RecipeError):
        load_recipe(QUICKSTART, [f"task.data={HAND_MADE[name]}"])
