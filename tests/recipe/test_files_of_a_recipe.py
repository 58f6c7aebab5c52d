"""Which files a recipe reads: every place that treats paths knows the same ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from foreword.recipe import Recipe, parse_recipe
from foreword.recipe.data import FILES, IDS
from foreword.runs.data import without_folders

DATA = {
    "format": "xsum",
    "train": "a/train.jsonl",
    "dev": "dev.jsonl",
    "test": "hub:EdinburghNLP/xsum:test",
    "unlabelled": "a/more.jsonl",
    "only": {"train": {"ids": "a/train.ids"}, "test": {"ids": "test.ids", "sections": ["sport"]}},
}
TEACHER = {"texts": ["a/one.txt", "two.txt"], "conversations": "a/talk.jsonl"}
READ_BY_DATA = {
    "task.data.train": "a/train.jsonl",
    "task.data.dev": "dev.jsonl",
    "task.data.test": "hub:EdinburghNLP/xsum:test",
    "task.data.unlabelled": "a/more.jsonl",
    "task.data.only.train.ids": "a/train.ids",
    "task.data.only.test.ids": "test.ids",
}
READ_BY_TEACHER = {
    "teacher.texts.0": "a/one.txt",
    "teacher.texts.1": "two.txt",
    "teacher.conversations": "a/talk.jsonl",
}


def recipe_of(*overrides: str, folder: Path | None = None, **sections: Any) -> Recipe:
    raw = {
        "version": 1,
        "name": "it",
        "backbone": "foreword/mini",
        "method": {"name": "prompt-tuning", "length": 1},
        **sections,
    }
    return parse_recipe(raw, overrides, folder=folder, start=Path("/start"))


def of_data(*overrides: str, folder: Path | None = None) -> Recipe:
    return recipe_of(*overrides, folder=folder, task={"input": "{document}", "data": DATA})


def of_teacher(*overrides: str, folder: Path | None = None, **changes: Any) -> Recipe:
    return recipe_of(*overrides, folder=folder, teacher=TEACHER | changes)


def test_the_files_of_a_recipe() -> None:
    assert of_data().files == READ_BY_DATA
    assert of_teacher().files == READ_BY_TEACHER
    instructed = of_teacher(texts=[], prompt="a/say.txt", conversations=None)
    assert instructed.files == {"teacher.prompt": "a/say.txt"}


def test_what_a_teacher_teaches() -> None:
    teacher = of_teacher().teacher
    assert teacher is not None
    assert teacher.learned == ("a/one.txt", "two.txt")
    instructed = of_teacher(texts=[], prompt="a/say.txt").teacher
    assert instructed is not None
    assert instructed.learned == ("a/say.txt",)


@pytest.mark.parametrize(("made", "read"), [(of_data, READ_BY_DATA), (of_teacher, READ_BY_TEACHER)])
def test_files_are_relative_to_the_recipe(made: Any, read: dict[str, str]) -> None:
    assert made(folder=Path("/here")).files == {
        key: path if path.startswith("hub:") else f"/here/{path}" for key, path in read.items()
    }


@pytest.mark.parametrize(("made", "read"), [(of_data, READ_BY_DATA), (of_teacher, READ_BY_TEACHER)])
def test_an_artifact_names_no_folder(made: Any, read: dict[str, str]) -> None:
    recipe = made(folder=Path("/somebody"))
    assert without_folders(recipe).files == {
        key: path if path.startswith("hub:") else Path(path).name for key, path in read.items()
    }
    assert "somebody" not in without_folders(recipe).to_yaml()
    assert recipe.files == made(folder=Path("/somebody")).files


@pytest.mark.parametrize("key", [*FILES, *IDS])
def test_data_files_given_beside_a_recipe(key: str) -> None:
    """Paths among overrides are relative to the working folder, not to the recipe's."""
    recipe = of_data(f"task.data.{key}=x/given", folder=Path("/here"))
    assert recipe.files[f"task.data.{key}"] == "/start/x/given"


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("teacher.texts=[x/given]", "teacher.texts.0"),
        ("teacher.texts=x/given", "teacher.texts.0"),
        ("teacher.conversations=x/given", "teacher.conversations"),
        ("teacher={prompt: x/given}", "teacher.prompt"),
    ],
)
def test_a_teachers_files_given_beside_a_recipe(override: str, key: str) -> None:
    recipe = of_teacher(override, folder=Path("/here"))
    assert recipe.files[key] == "/start/x/given"


def test_a_section_that_names_no_file_says_the_same_after_a_move() -> None:
    data = recipe_of(task={"input": "{x}", "data": {"format": "jsonl"}}).task.data
    moved = data.moved(lambda path: f"/{path}")
    assert moved == data
    assert moved.model_fields_set == data.model_fields_set
