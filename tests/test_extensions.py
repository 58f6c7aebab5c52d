"""What other packages and a user's own file register is known everywhere; mistakes are named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from foreword import names
from foreword.common import registry
from foreword.common.registry import Registry
from foreword.data import read_examples
from foreword.errors import RecipeError, UserError
from foreword.evaluation import METRICS as SCORED
from foreword.extensions import data_format, load_plugin, metric
from foreword.methods import METHODS
from foreword.recipe import parse_recipe, recipe_schema

METHOD = """
from typing import ClassVar, Literal
from foreword.extensions import method
from foreword.methods import PrefixTuning

@method
class Short(PrefixTuning):
    paper: ClassVar[str] = "ours"
    name: Literal["short-prefix"]
    length: int = 2
"""


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Registries are shared by the process."""
    kept = [(one, dict(one._entries)) for one in (METHODS, names.METRICS, names.FORMATS)]
    yield
    for one, entries in kept:
        one._entries = entries
        one.changes += 1


def recipe(**changes: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "name": "it",
        "backbone": "foreword/mini",
        "task": {"data": {"format": "jsonl", "train": "foreword/fieldguide/train"}},
        "method": "prefix-tuning",
        "training": {"steps": 1},
        **changes,
    }


def plugin(folder: Path, text: str, name: str = "mine.py") -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def test_a_method_of_a_users_file(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"method\.name: 'short-prefix' is not known"):
        parse_recipe(recipe(method="short-prefix"))
    file = plugin(tmp_path, METHOD)
    load_plugin(file)
    load_plugin(file)
    method = parse_recipe(recipe(method="short-prefix")).method
    assert (method.name, method.length) == ("short-prefix", 2)
    assert type(method) is METHODS["short-prefix"]
    schema = recipe_schema()
    assert "short-prefix" in json.dumps(schema["properties"]["method"])
    assert "reparameterization" in schema["$defs"]["Short"]["properties"]
    with pytest.raises(RecipeError, match=r"method\.lenght: no such name .*length"):
        parse_recipe(recipe(method={"name": "short-prefix", "lenght": 3}))


def test_two_methods_of_one_name_are_refused(tmp_path: Path) -> None:
    taken = METHOD.replace("short-prefix", "prefix-tuning")
    with pytest.raises(UserError, match=r"method 'prefix-tuning': is defined by .*prefix_tuning"):
        load_plugin(plugin(tmp_path, taken))
    assert METHODS["prefix-tuning"].__module__ == "foreword.methods.prefix_tuning"


@pytest.mark.parametrize(
    ("text", "name", "said"),
    [
        (None, "gone.py", "no such file"),
        ("1 / 0", "broken.py", "running it failed with ZeroDivisionError: division by zero"),
        ("def", "syntax.py", "running it failed with SyntaxError"),
        ("x = 1", "mine.txt", "must end in .py"),
    ],
)
def test_a_file_that_is_no_plugin(tmp_path: Path, text: str | None, name: str, said: str) -> None:
    file = tmp_path / name if text is None else plugin(tmp_path, text, name)
    with pytest.raises(UserError, match=said):
        load_plugin(file)


def test_a_metric_and_a_format(tmp_path: Path) -> None:
    @metric("words", title="words", of="text", better="low")
    def words(answers: list[str], examples: list[Any]) -> float:
        return sum(len(answer.split()) for answer in answers) / len(answers)

    @data_format("pairs", "source and target, a tab between")
    def pairs(asked: Any) -> Iterator[Any]:
        from foreword.data.rows import Row

        for number, line in enumerate(Path(asked.path).read_text("utf-8").splitlines(), 1):
            source, target = line.split("\t")
            yield Row(f"line {number}", {"text": source, "references": target})

    task: dict[str, Any] = {
        "data": {"format": "pairs", "train": "x"},
        "input": "{text}",
        "metrics": ["words", "bleu"],
    }
    training = {"steps": 1, "best_by": "words"}
    checked = parse_recipe(
        recipe(task={**task, "data": {**task["data"], "dev": "x"}}, training=training)
    )
    assert checked.task.measured == ("words", "bleu")
    assert checked.task.answer == "text"
    assert SCORED["words"].score(["a b", "c"], []) == 1.5
    assert (SCORED["words"].better, SCORED["words"].title) == ("low", "words")
    file = tmp_path / "x.pairs"
    file.write_text("a bird\tein Vogel\n", encoding="utf-8")
    (example,) = read_examples(file, "pairs")
    assert (example.fields, example.references) == ({"text": "a bird"}, ("ein Vogel",))
    labelled = {**task, "data": {"format": "pairs", "train": "x", "label": "kind"}}
    with pytest.raises(RecipeError, match="`label` is for the formats jsonl, csv, tsv, parquet"):
        parse_recipe(recipe(task=labelled))


def test_an_unknown_format_is_named() -> None:
    with pytest.raises(UserError, match=r"format: 'jsnl' is not known \(did you mean 'jsonl'"):
        read_examples("x", "jsnl")


def red() -> None:
    """Registered on import, as a package's module does it."""


def test_packages_are_looked_up_once_and_the_broken_ones_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    colours: Registry[Any] = Registry("colour", "foreword.colours")
    colours.add("black", test_an_unknown_format_is_named)
    asked = []

    def points(group: str) -> list[EntryPoint]:
        asked.append(group)
        return [
            EntryPoint("red", "test_extensions:red", group),
            EntryPoint("blue", "no_such_package:blue", group),
        ]

    monkeypatch.setattr(registry, "entry_points", points)
    assert "black" in colours
    assert not asked, "what is built in needs no look at packages"
    with pytest.warns(UserWarning, match="colour") as warned:
        assert "green" not in colours
    assert [str(one.message).split(":")[0] for one in warned] == [
        "colour 'red' of the entry point test_extensions",
        "colour 'blue' of the entry point no_such_package",
    ]
    assert "registers nothing by that name" in str(warned[0].message)
    assert "ModuleNotFoundError" in str(warned[1].message)
    assert list(colours) == ["black"]
    assert asked == ["foreword.colours"]


def test_an_entry_point_that_registers(monkeypatch: pytest.MonkeyPatch) -> None:
    colours: Registry[Any] = Registry("colour", "foreword.colours")

    class Point:
        name, value = "red", "package:red"

        def load(self) -> None:
            colours.add("red", red)

    monkeypatch.setattr(registry, "entry_points", lambda group: [Point()])
    assert colours["red"] is red
    assert len(colours) == 1
