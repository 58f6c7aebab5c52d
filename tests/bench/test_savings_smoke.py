"""What one saving is worth, and what rows save that share a long prompt."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import Bench
from foreword.backbone.prompts import merged


def test_a_saving_has_a_time_and_a_peak(
    bench: Bench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merged, "QUERIES", 1)
    flags = ["--threads", "1", "--clock", "cpu", "--rounds", "1"]
    given = ["--shape", "tiny-gpt2", "--method", "prefix of 512", "--saving", "copies"]
    bench("savings").main([*given, *flags])
    told = capsys.readouterr().out
    assert told.startswith("tiny-gpt2, prefix of 512, copies: time ")
    assert float(told.rpartition("peak ")[2]) < 1


def test_rows_that_share_a_prompt_hold_less(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--threads", "1", "--rounds", "1", "--cases", "0", "--out", str(tmp_path)]
    assert bench("sharing").main(given) == 0
    assert "| 16 | 256 | 1 | " in capsys.readouterr().out
    report = json.loads((tmp_path / "sharing-mini-float32.json").read_text("utf-8"))
    (row,) = report["shared_over_copied"]
    assert row["memory"] < 0.5
    assert str(tmp_path) not in report["command"]
