"""`foreword-vllm`: what vLLM's own command line gets. And what the package imports."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

import foreword_vllm
from foreword_vllm import PromptError
from foreword_vllm.__main__ import MIDDLEWARE, arguments

FILES = sorted(Path(foreword_vllm.__file__).parent.glob("*.py"))
MAY_IMPORT_VLLM = {"__init__.py", "__main__.py", "connector.py"}


def test_arguments_of_vllm(tmp_path) -> None:
    given = ["base", "--prompts", str(tmp_path), "--port", "81", "--prompts-memory-mb", "5"]
    model, *options = arguments(given)
    assert model == "base"
    transfer = json.loads(options[options.index("--kv-transfer-config") + 1])
    assert transfer["kv_connector"] == "ForewordConnector"
    assert transfer["kv_connector_extra_config"] == {"prompts": str(tmp_path), "memory_mb": 5}
    assert options[options.index("--middleware") + 1] == MIDDLEWARE
    assert options[-2:] == ["--port", "81"]


def test_other_weights_are_asked_for(tmp_path) -> None:
    _, *options = arguments(["base", "--other-weights", "--prompts", str(tmp_path)])
    assert json.loads(options[1])["kv_connector_extra_config"]["other_weights"] is True


@pytest.mark.parametrize("option", ["--kv-transfer-config={}", "--kv-transfer-config.kv_role=x"])
def test_what_is_set_here_is_not_set_twice(option, tmp_path) -> None:
    with pytest.raises(PromptError, match="is set by foreword-vllm"):
        arguments(["base", "--prompts", str(tmp_path), option])


def test_a_folder_of_prompts_is_needed(tmp_path, capsys) -> None:
    with pytest.raises(PromptError, match="no folder of prompts"):
        arguments(["base", "--prompts", str(tmp_path / "none")])
    with pytest.raises(SystemExit):
        arguments(["base"])
    assert "--prompts" in capsys.readouterr().err


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_neither_foreword_nor_transformers_is_imported(file) -> None:
    for node in ast.walk(ast.parse(file.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        roots = {name.split(".")[0] for name in names}
        assert not roots & {"foreword", "transformers"}
        assert "vllm" not in roots or file.name in MAY_IMPORT_VLLM


def test_files_are_short() -> None:
    assert max(len(file.read_text().splitlines()) for file in FILES) < 400
