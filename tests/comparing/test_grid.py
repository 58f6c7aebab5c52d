"""What a grid names, and where its runs lie."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

from foreword.comparing import cells as comparing_cells
from foreword.comparing.cells import content_hash, distinct, places_of
from foreword.comparing.grid import Cell, load_grid
from foreword.errors import RecipeError
from foreword.recipe import parse_recipe

QUICKSTART = Path(__file__).resolve().parents[2] / "recipes" / "quickstart.yaml"


def grid_file(folder: Path, **fields: Any) -> Path:
    file = folder / "grid.yaml"
    whole = {"version": 1, "name": "tried", "recipe": str(QUICKSTART), **fields}
    file.write_text(yaml.safe_dump(whole), encoding="utf-8")
    return file


def test_every_combination_with_every_seed_and_further_runs(tmp_path: Path) -> None:
    file = grid_file(
        tmp_path,
        set={"training.steps": 3},
        seeds=[0, 1],
        grid={
            "method.length": [1, 5],
            "start": {"random": {"method.init": "random"}, "text": {"method.init.examples": 2}},
        },
        runs={"fine-tuning": {"method": "fine-tuning"}},
    )
    _, cells = load_grid(file)
    assert [(cell.method, cell.recipe.seed) for cell in cells] == [
        (f"length {length}, {start}", seed)
        for length in (1, 5)
        for start in ("random", "text")
        for seed in (0, 1)
    ] + [("fine-tuning", 0), ("fine-tuning", 1)]
    assert {cell.recipe.training.steps for cell in cells} == {3}
    assert [cell.recipe.method.length for cell in cells[:8]] == [1, 1, 1, 1, 5, 5, 5, 5]
    assert cells[-1].recipe.method.name == "fine-tuning"


def test_what_is_drawn_is_averaged_over_as_seeds_are(tmp_path: Path) -> None:
    file = grid_file(
        tmp_path,
        seeds=[0, 1],
        draws={"task.limits.sample": [1, 2, 3]},
        grid={"task.limits.train": [50, 100]},
    )
    _, cells = load_grid(file)
    assert len(cells) == 12
    assert {cell.method for cell in cells} == {"train 50", "train 100"}
    assert cells[1].name == "train 50, seed 0, sample 2"
    assert [cell.recipe.task.limits.sample for cell in cells[:3]] == [1, 2, 3]


def test_each_seed_can_draw_its_own(tmp_path: Path) -> None:
    file = grid_file(
        tmp_path,
        seeds=[4, 7],
        draws={"task.limits.sample": "seed"},
        grid={"task.limits.train": [50]},
    )
    _, cells = load_grid(file)
    assert [(cell.recipe.seed, cell.recipe.task.limits.sample) for cell in cells] == [
        (4, 4),
        (7, 7),
    ]
    assert [cell.name for cell in cells] == ["train 50, seed 4", "train 50, seed 7"]


def test_an_axis_of_seeds_is_the_same_as_seeds(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    _, axis = load_grid(grid_file(tmp_path / "a", grid={"method.length": [1], "seed": [3, 4]}))
    _, seeds = load_grid(grid_file(tmp_path / "b", grid={"method.length": [1]}, seeds=[3, 4]))
    assert [cell.recipe for cell in axis] == [cell.recipe for cell in seeds]


def test_seeds_alone_are_the_runs_of_one_method(tmp_path: Path) -> None:
    _, axis = load_grid(grid_file(tmp_path, grid={"seed": [0, 1]}))
    assert [cell.name for cell in axis] == ["quickstart, seed 0", "quickstart, seed 1"]
    _, seeds = load_grid(grid_file(tmp_path, seeds=[0, 1]))
    assert [cell.recipe for cell in axis] == [cell.recipe for cell in seeds]
    further = {"runs": {"short": {"method.length": 1}}}
    for given in ({"grid": {"seed": [0, 1]}}, {"seeds": [0, 1]}):
        _, cells = load_grid(grid_file(tmp_path, **given, **further))
        assert [cell.name for cell in cells] == ["short, seed 0", "short, seed 1"]


def test_a_date_is_a_text(tmp_path: Path) -> None:
    file = grid_file(tmp_path, seeds=[0], grid={"name": ["a"]})
    file.write_text(file.read_text(encoding="utf-8").replace("- a", "- 2020-01-01"), "utf-8")
    _, (cell,) = load_grid(file)
    assert (cell.method, cell.recipe.name) == ("2020-01-01", "2020-01-01")


def test_paths_are_relative_to_the_grid(tmp_path: Path) -> None:
    (tmp_path / "own.jsonl").write_text('{"record": "a", "references": "b"}\n', encoding="utf-8")
    file = grid_file(tmp_path, grid={"task.data.train": ["own.jsonl"]})
    _, (cell,) = load_grid(file)
    assert cell.recipe.task.data.train == str(tmp_path / "own.jsonl")


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({}, "grid: names nothing to compare"),
        ({"grid": {"method.length": []}}, "grid.method.length: has no values"),
        ({"grid": {"method.length": [1, 1]}}, "grid.method.length: names a value twice"),
        ({"grid": {"seed": [0]}, "seeds": [1]}, "seeds: give either `seeds` or the axis `seed`"),
        ({"grid": {"method.length": [1]}, "x": "size"}, "x: 'size' is no axis"),
        ({"grid": {"method.length": [1]}, "draws": {"seed": [1]}}, "give `seeds` instead"),
        (
            {"grid": {"method.length": [1]}, "draws": {"task.limits.sample": "seed"}},
            "draws.task.limits.sample: `seed` needs seeds",
        ),
        (
            {"grid": {"method.length": [1]}, "draws": {"task.limits.sample": "3"}},
            "draws.task.limits.sample: expected a list, or `seed`, found '3'",
        ),
        ({"seeds": [0, 0], "grid": {"method.length": [1]}}, "seeds: names a value twice"),
        (
            {"draws": {"task.limits.sample": [1, 1]}, "grid": {"method.length": [1]}},
            "draws.task.limits.sample: names a value twice",
        ),
        (
            {"grid": {"method.length": [1], "seed": [0, 0.0]}},
            "length 1, seed 0: is the same run as length 1, seed 0, and would be counted as two",
        ),
        (
            {
                "grid": {"method": ["prompt-tuning", "bitfit"]},
                "runs": {"bitfit": {"method": "bitfit", "training.learning_rate": 1e-4}},
            },
            "'bitfit' names two settings, method: bitfit and run: bitfit",
        ),
        ({"grid": {"method": ["prompt-tuning", "bitfit"]}, "x": "method"}, "'prompt-tuning'"),
        ({"grid": {"method.length": [1, "nan"]}, "x": "method.length"}, "is no number, 'nan'"),
        ({"grid": {"task.limits.train": [8, None]}, "x": "task.limits.train"}, "'null'; name an"),
        ({"grid": {"method.length": [1], "seed": [0, 1]}, "x": "seed"}, "x: 'seed' is no axis"),
        ({"grid": {"method.length": [0]}}, "method.length"),
        ({"grid": {"method.size": [1]}}, "method.size"),
        ({"grid": {"method.length": list(range(1, 10_002))}}, "makes 10,001 runs"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], line: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        load_grid(grid_file(tmp_path, **fields))
    assert line in str(caught.value)


def test_a_run_is_named_by_what_decides_it(tmp_path: Path) -> None:
    data = tmp_path / "own.jsonl"
    data.write_text('{"record": "a", "references": "b"}\n', encoding="utf-8")
    file = grid_file(tmp_path, grid={"method.length": [1, 2]}, set={"task.data.train": str(data)})
    _, cells = load_grid(file)
    first, second = places_of(cells, tmp_path / "out")
    assert first.folder != second.folder
    assert first.state == "waiting"
    _, again = load_grid(file)
    assert places_of(again, tmp_path / "out")[0].folder == first.folder
    other = tmp_path / "other.jsonl"
    other.write_text('{"record": "a", "references": "c"}\n', encoding="utf-8")
    changed = grid_file(tmp_path, grid={"method.length": [1]}, set={"task.data.train": str(other)})
    _, (cell,) = load_grid(changed)
    assert content_hash(cell) != content_hash(cells[0])


def test_a_plug_in_that_changes_is_other_code(tmp_path: Path, monkeypatch) -> None:
    _, (cell,) = load_grid(grid_file(tmp_path, grid={"method.length": [1]}))
    before = content_hash(cell)
    file = tmp_path / "own.py"
    file.write_text("NUMBER = 1\n", encoding="utf-8")
    monkeypatch.setattr(comparing_cells, "loaded_plugins", lambda: (str(file),))
    first = content_hash(cell)
    file.write_text("NUMBER = 22\n", encoding="utf-8")
    assert len({before, first, content_hash(cell)}) == 3


def test_a_run_that_is_there_is_taken_whatever_it_is_called(tmp_path: Path) -> None:
    one = {"runs": {"one": {"method.length": 3}}}
    _, cells = load_grid(grid_file(tmp_path, seeds=[0], **one))
    (place,) = places_of(cells, tmp_path / "out")
    assert place.folder.name.startswith("one-seed-0-")
    digest = place.folder.name.rpartition("-")[2]
    place.folder.mkdir(parents=True)  # stopped before anything was written
    assert places_of(cells, tmp_path / "out") == [place]
    for name, content in {
        f"a-first-{digest}": "recipe.yaml",
        f"other-label-{digest}": "metrics.json",
        f"the-last-{digest}": "recipe.yaml",
        "one-seed-0-0123456789ab": "metrics.json",
    }.items():
        (tmp_path / "out" / "runs" / name).mkdir(parents=True)
        (tmp_path / "out" / "runs" / name / content).write_text("", encoding="utf-8")
    (again,) = places_of(cells, tmp_path / "out")
    assert (again.folder.name, again.state) == (f"other-label-{digest}", "finished")
    (again.folder / "metrics.json").unlink()
    (again,) = places_of(cells, tmp_path / "out")
    assert (again.folder.name, again.state) == (f"a-first-{digest}", "begun")


def test_two_names_of_one_run_are_one_folder(tmp_path: Path) -> None:
    same = {"runs": {"one": {"method.length": 3}, "other": {"method.length": 3}}}
    _, cells = load_grid(grid_file(tmp_path, seeds=[0], **same))
    places = places_of(cells, tmp_path / "out")
    assert places[0].folder == places[1].folder
    assert places[0].folder.name.startswith("one-seed-0-")
    assert distinct(places) == places[:1]


def test_a_file_that_changes_is_another_run_in_the_same_process(tmp_path: Path) -> None:
    """The text has as many bytes as before."""
    data = tmp_path / "own.jsonl"
    data.write_text('{"record": "a", "references": "b"}\n', encoding="utf-8")
    file = grid_file(tmp_path, grid={"method.length": [1]}, set={"task.data.train": str(data)})
    _, (cell,) = load_grid(file)
    before = content_hash(cell)
    assert content_hash(cell) == before
    os.utime(data, ns=(0, 0))
    assert content_hash(cell) == before
    data.write_text('{"record": "a", "references": "c"}\n', encoding="utf-8")
    assert content_hash(cell) != before


def test_ids_decide_a_run_too(tmp_path: Path) -> None:
    from foreword.runs.data import data_hashes

    for name in ("summaries", "ids"):
        (tmp_path / name).write_text("1\n", encoding="utf-8")
    given = yaml.safe_load(QUICKSTART.read_text(encoding="utf-8"))
    train = str(tmp_path / "summaries")
    only = {"train": {"ids": str(tmp_path / "ids")}}
    given["task"] |= {"data": {"format": "xsum", "train": train, "dev": train, "only": only}}
    cell = Cell({}, parse_recipe(given))
    before, hashes = content_hash(cell), data_hashes(cell.recipe)
    assert set(hashes) == {"train", "train ids", "dev"}
    assert hashes["train ids"]["name"] == "ids"
    (tmp_path / "ids").write_text("2\n3\n", encoding="utf-8")
    assert content_hash(cell) != before
    assert data_hashes(cell.recipe)["train ids"] != hashes["train ids"]


@pytest.mark.parametrize("name", ["model.safetensors", "model.gguf"])
def test_a_local_backbone_is_its_weights(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOREWORD_CACHE", str(tmp_path / "cache"))
    backbone = tmp_path / "backbone"
    backbone.mkdir()
    where = backbone if name == "model.safetensors" else backbone / name
    hashes = []
    for value in (1.0, 2.0):
        save_file({"w": torch.full((2 + int(value),), value)}, backbone / name)
        _, (cell,) = load_grid(grid_file(tmp_path, set={"backbone": str(where)}, seeds=[0]))
        hashes += [content_hash(cell), content_hash(cell)]
    assert hashes[0] == hashes[1] != hashes[2] == hashes[3]


def test_the_grids_that_come_along_can_be_run() -> None:
    files = sorted((QUICKSTART.parents[1] / "grids").glob("**/*.yaml"))
    assert files
    for file in files:
        _, cells = load_grid(file)
        assert len(cells) > 1
