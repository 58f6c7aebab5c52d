"""The benchmark of loading and changing prompts runs and reports everything. No timing here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import Bench


def test_all_variants_are_reported(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = bench("prompts")
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
