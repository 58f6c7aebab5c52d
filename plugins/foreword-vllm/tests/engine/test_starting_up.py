"""An engine that could not serve its prompts rightly does not start."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from forked import cases, engine, run

from foreword_vllm import weights


def fails(model: str, prompts: str, settings: dict[str, Any]) -> str:
    """What an engine says that does not start."""
    try:
        engine(model, prompts, **settings)
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return "it started"


def test_a_base_model_with_other_weights_is_refused(tmp_path) -> None:
    known = cases()["llama"]
    other = tmp_path / "other"
    shutil.copytree(known["model"], other)
    file = other / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 64
    file.write_bytes(content)
    said = run(fails, str(other), known["prompts"], {})
    assert "was trained on" in said
    assert weights.sha256_of(str(other))[:12] in said
    told = run(fails, str(other), known["prompts"], {"extra": {"other_weights": True}})
    assert told == "it started"


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"extra": {"prompt": "x"}}, "did you mean 'prompts'"),
        ({"enable_prompt_embeds": True}, "enable_prompt_embeds"),
    ],
)
def test_settings_that_do_not_go_with_prompts(settings, why) -> None:
    known = cases()["llama"]
    assert why in run(fails, known["model"], known["prompts"], settings)


def test_there_must_be_prompts(tmp_path) -> None:
    known = cases()["llama"]
    said = run(fails, known["model"], str(Path(tmp_path) / "none"), {})
    assert "is no folder of prompts" in said
