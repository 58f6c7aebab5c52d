"""The benchmarks of single steps run and report. No timing here."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import Bench


def test_precision(
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    precision = bench("precision")
    monkeypatch.setattr(precision, "VARIANTS", {"float32": ("float32", False)})
    out = tmp_path / "figures.json"
    monkeypatch.setattr(sys, "argv", ["precision.py", "--rounds", "1", "--out", str(out)])
    precision.main()
    assert "float32" in capsys.readouterr().out
    figures = json.loads(out.read_text())
    assert figures["ratios to float32"] == {"float32": {"step": 1.0, "forward": 1.0}}
    assert set(figures["units"]) == {"bfloat16", "float16"}


def test_activation(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    activation = bench("activation")
    monkeypatch.setattr(activation, "ROUNDS", 1)
    activation.main()
    assert "fused / transformers' own" in capsys.readouterr().out
