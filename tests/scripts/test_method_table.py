"""The tables of methods are what scripts/method_table.py writes, a row for each recipe."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from foreword.methods import METHODS
from foreword.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("method_table", ROOT / "scripts/method_table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_method_has_a_recipe_a_page_and_a_figure(script: ModuleType) -> None:
    rows = json.loads(script.FIGURES.read_text(encoding="utf-8"))
    files = {f"recipes/methods/{file.name}" for file in script.RECIPES.glob("*.yaml")}
    assert {row["recipe"] for row in rows} == files
    assert {row["method"] for row in rows} == set(METHODS)
    for row in rows:
        recipe = load_recipe(ROOT / row["recipe"])
        assert (recipe.method.name, recipe.backbone.name) == (row["method"], row["backbone"])
        changed = script.changes(row["settings"], ROOT / row["recipe"])
        assert not changed, (
            f"{row['recipe']}: {', '.join(changed)} changed: run scripts/method_table.py --out ..."
        )
        assert (ROOT / "docs" / "methods" / f"{row['method']}.md").exists()
        assert row["figure"] > (row["backbone_alone"] or 0)


def test_a_changed_setting_is_named(script: ModuleType) -> None:
    recipe = script.RECIPES / "lora.yaml"
    measured = script.settings(recipe)
    assert script.changes(measured, recipe) == []
    older = {**measured, "training": {**measured["training"], "learning_rate": 1.0}}
    del older["training"]["tracker"]  # a field younger than the run, at its default
    assert script.changes(older, recipe) == ["training.learning_rate"]
    del older["training"]["learning_rate"]  # a younger one that the recipe sets
    assert script.changes(older, recipe) == ["training.learning_rate"]
    assert script.changes({**measured, "gone": 1}, recipe) == ["gone"]


def test_pages_hold_the_tables(script: ModuleType) -> None:
    rows = json.loads(script.FIGURES.read_text(encoding="utf-8"))
    for page in script.PLACES:
        assert f"-->\n{script.table(rows, page)}\n<!-- methods: end" in page.read_text("utf-8"), (
            f"{page}: run scripts/method_table.py"
        )


def test_a_page_without_marks_is_refused(script: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Methods\n", encoding="utf-8")
    with pytest.raises(AssertionError, match="has no marks"):
        script.write(page, "| a |")
    assert page.read_text(encoding="utf-8") == "# Methods\n"
