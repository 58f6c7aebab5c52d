"""JSON that is nested too deeply is refused by every reader, and so is such data from Python."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import foreword
from foreword.artifacts.manifest import read_manifest
from foreword.backbone.weights.hashing import _checkpoint_files
from foreword.backbone.weights.quantization import plain
from foreword.common.json_text import DEEPEST, check_depth, parse_json
from foreword.compat.reading import read_adapter
from foreword.data import read_examples
from foreword.errors import ArtifactError, BackboneError, DataError, RecipeError, UserError
from foreword.recipe import load_recipe, parse_recipe
from foreword.recipe.yaml_text import parse_yaml
from foreword.runs.finished import read_answers, read_metrics
from foreword.training.storage import read_checkpoint


def nested(depth: int) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = [value]
    return value


def test_the_deepest_that_is_read() -> None:
    assert parse_json(json.dumps(nested(DEEPEST))) == nested(DEEPEST)
    for depth in (DEEPEST + 1, 500):
        with pytest.raises(ValueError, match="nested more than 64 deep"):
            parse_json(json.dumps(nested(depth)))
    for text in ("[" * 100_000 + "]" * 100_000, '{"a":' * 100_000 + "1" + "}" * 100_000):
        with pytest.raises(ValueError, match="nested more than 64 deep"):
            parse_json(text)
    with pytest.raises(json.JSONDecodeError):
        parse_json("[" * 3)


def test_data_in_a_circle_and_data_that_is_shared() -> None:
    circle: list[Any] = []
    circle += [circle, circle]
    with pytest.raises(ValueError, match="nested more than 64 deep"):
        check_depth(circle)
    shared: list[Any] = []
    for _ in range(DEEPEST - 1):
        shared = [shared, shared]
    check_depth(shared)


READERS: dict[str, tuple[str, type[UserError], Callable[[Path], Any]]] = {
    "manifest": ("foreword.json", ArtifactError, lambda file: read_manifest(file.parent)),
    "adapter": ("adapter_config.json", ArtifactError, lambda file: read_adapter(file.parent)),
    "index": (
        "model.safetensors.index.json",
        BackboneError,
        lambda file: _checkpoint_files(file.parent),
    ),
    "data": ("data.jsonl", DataError, lambda file: read_examples(file, "jsonl")),
    "metrics": ("metrics.json", UserError, lambda file: read_metrics(file.parent)),
    "answers": ("answers.jsonl", UserError, lambda file: read_answers(file.parent)),
    "recipe": ("recipe.yaml", RecipeError, load_recipe),
}


@pytest.mark.parametrize("depth", [DEEPEST + 1, 400, 100_000])
@pytest.mark.parametrize("reader", READERS)
def test_every_reader_survives_deep_nesting(reader: str, depth: int, tmp_path: Path) -> None:
    name, error, read = READERS[reader]
    file = tmp_path / name
    file.write_text('{"name": ' + "[" * depth + "]" * depth + "}", encoding="utf-8")
    if reader == "adapter":
        (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(error, match=r"nested (more than 64 deep|too deeply)"):
        read(file)


def test_a_checkpoint_that_is_nested_deeply(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.json").write_text("[" * 400 + "]" * 400, encoding="utf-8")
    with pytest.raises(ValueError, match="nested more than 64 deep"):
        read_checkpoint(tmp_path)


def test_nested_data_from_python() -> None:
    with pytest.raises(RecipeError, match="nested more than 64 deep"):
        parse_recipe({"version": 1, "name": nested(2000)})
    with pytest.raises(BackboneError, match="nested more than 64 deep"):
        plain({"quant_method": "x", "deep": nested(2000)})
    with pytest.raises(ValueError, match="nested more than 64 deep"):
        parse_yaml("[" * 100 + "]" * 100)


def test_json_is_read_in_one_place() -> None:
    """What is read back at once, from text that was made here, is no JSON from outside."""
    package = Path(foreword.__file__).parent
    own = {"json_text.py", "quantization.py", "tokenizing.py"}
    for file in package.rglob("*.py"):
        calls = [
            ast.unparse(node.func)
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
            if isinstance(node, ast.Call)
        ]
        assert file.name in own or not {"json.loads", "json.load"} & set(calls), file
