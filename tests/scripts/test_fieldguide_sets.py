"""The sets that scripts/fieldguide_sets.py makes are those that recipes read."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from foreword.data import read_examples
from foreword.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[2]
ROWS = {"labels": (1207, 190, 369), "numbers": (1207, 190, 369), "choices": (400, 60, 120)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = ROOT / "scripts/fieldguide_sets.py"
    spec = importlib.util.spec_from_file_location("fieldguide_sets", file)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    out = tmp_path_factory.mktemp("sets")
    assert script.main(["--out", str(out)]) == 0
    return out


@pytest.mark.parametrize(
    ("name", "kind"),
    [("several-labels", "labels"), ("regression", "numbers"), ("multiple-choice", "choices")],
)
def test_its_recipe_reads_them(name: str, kind: str, folder: Path) -> None:
    data = load_recipe(ROOT / "recipes" / "tasks" / f"{name}.yaml").task.data
    columns = {"labels": "label_list", "numbers": "number", "choices": "choices"}
    given = {columns[kind]: getattr(data, columns[kind])}
    if kind == "choices":
        given["right"] = data.right
    for split, count in zip(("train", "dev", "test"), ROWS[kind], strict=True):
        file = folder / Path(str(getattr(data, split))).name
        found = read_examples(file, data.format, **given)
        assert len(found) == count
        for example in found:
            if kind == "choices":
                assert len(example.choices) == 4
                assert len(example.right) == 1
            else:
                assert (example.labels if kind == "labels" else example.number) is not None
