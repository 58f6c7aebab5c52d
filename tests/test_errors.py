"""The exception tree is the one that is drawn."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from foreword import errors
from foreword.errors import ForewordError, RecipeError, RunError, UserError, did_you_mean


def drawn() -> dict[str, str | None]:
    """Class to parent, from the docstring's tree."""
    parents: dict[str, str | None] = {}
    open_: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        rest = line.lstrip(" │├└─")
        name = rest.split(" ")[0]
        if not name.endswith("Error"):
            continue
        depth = len(line) - len(rest)
        while open_ and open_[-1][0] >= depth:
            open_.pop()
        parents[name] = open_[-1][1] if open_ else None
        open_.append((depth, name))
    return parents


def test_the_tree_is_the_drawn_one() -> None:
    classes = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]
    ours = [kind for kind in classes if issubclass(kind, Exception)]
    assert drawn() == {
        kind.__name__: None if kind is ForewordError else kind.__bases__[0].__name__
        for kind in ours
    }
    assert all(kind.__doc__ for kind in ours)


@pytest.mark.parametrize("name", drawn())
def test_exit_status(name: str) -> None:
    kind = getattr(errors, name)
    assert kind.exit_status == (2 if issubclass(kind, UserError) else 1)
    assert RunError.exit_status == 1


def test_recipe_error_counts_its_problems() -> None:
    error = RecipeError("file", iter(["a: x", "b: y"]))
    assert error.problems == ("a: x", "b: y")
    assert str(error) == "file: 2 problems\n  - a: x\n  - b: y"
    assert str(RecipeError("file", ["a: x"])) == "file: 1 problem\n  - a: x"


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("lenght", ["length", "name"], " (did you mean 'length'?)"),
        ("zzz", ["b", "a"], " (known: a, b)"),
        ("zzz", [], ""),
        ("zzz", iter(["zz"]), " (did you mean 'zz'?)"),
    ],
)
def test_did_you_mean(name: str, known: list[str], hint: str) -> None:
    assert did_you_mean(name, known) == hint


def _messages(file: Path) -> Iterator[str]:
    """The texts of a module that are neither documentation nor what `argument` is given."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    apart = {
        id(text)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "argument"
        for text in ast.walk(node)
    }
    apart |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in apart:
            yield node.value


def test_what_python_calls_speaks_of_no_flag_of_the_command_line() -> None:
    """Outside of the command line a flag is named through `argument` alone."""
    package = Path(errors.__file__).parent
    shown = {"artifacts/card.py": ["--input", "--text"], "tasks/turns.py": ["--text"]}  # commands
    for file in sorted(package.rglob("*.py")):
        if {"cli", "bundled", "http"} & set(file.relative_to(package).parts):
            continue
        flags = [flag for text in _messages(file) for flag in re.findall(r"--[a-z][a-z-]*", text)]
        assert flags == shown.get(str(file.relative_to(package)), []), file


def test_an_argument_is_named_as_it_was_given() -> None:
    assert errors.argument("--other-backbone") == "`other_backbone`"
    assert errors.argument("--resume", "`resume=True`") == "`resume=True`"
    with errors.named_as_flags():
        assert errors.argument("--resume", "`resume=True`") == "--resume"
    assert errors.argument("--out") == "`out`"
