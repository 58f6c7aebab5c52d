"""The benchmark of loading and changing prompts runs and reports everything. No timing here."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import torch
from transformers.utils import logging

BENCH = Path(__file__).parent.parent.parent / "bench"


@pytest.fixture
def prompts(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module bench/prompts.py; what running it sets for the whole process is set back."""
    monkeypatch.syspath_prepend(str(BENCH))
    threads, verbosity = torch.get_num_threads(), logging.get_verbosity()
    yield import_module("prompts")
    for name in ("prompts", "training", "floor"):
        sys.modules.pop(name, None)
    torch.set_num_threads(threads)
    logging.set_verbosity(verbosity)


def test_all_variants_are_reported(
    prompts: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ["--rounds", "2", "--steps", "1", "--registered", "3", "--length", "2", "--threads", "1"]
    assert prompts.main(["--shape", "tiny", *few, "--out", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "prompts-tiny-cpu.json").read_text("utf-8"))
    assert report["command"].startswith("python bench/prompts.py --shape tiny")
    assert set(report["variants"]) == {
        "one forward pass",
        "foreword, load",
        "foreword, load and hash the tokenizer",
        "foreword, change the prompt",
        "foreword, a call with one prompt",
        "foreword, a call with the next prompt",
        "PEFT, load_adapter",
        "PEFT, set_adapter",
        "PEFT, a call with one prompt",
        "PEFT, set_adapter and a call",
    }
    printed = capsys.readouterr().out
    for name, figures in report["variants"].items():
        assert len(figures["ratios"]) == 2
        assert all(ratio > 0 for ratio in figures["ratios"])
        assert f"| {name} |" in printed
    assert report["variants"]["one forward pass"]["ratios"] == [1.0, 1.0]
