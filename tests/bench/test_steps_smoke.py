"""The benchmarks of single steps run and report. No timing here."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import torch

BENCH = Path(__file__).parent.parent.parent / "bench"


def module(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A benchmark, found as Python finds it when it is run."""
    monkeypatch.syspath_prepend(str(BENCH))
    for one in (name, "fieldguide"):
        monkeypatch.delitem(sys.modules, one, raising=False)
    return import_module(name)


def test_precision(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    bench, threads = module("precision", monkeypatch), torch.get_num_threads()
    monkeypatch.setattr(bench, "VARIANTS", {"float32": ("float32", False)})
    out = tmp_path / "figures.json"
    monkeypatch.setattr(sys, "argv", ["precision.py", "--rounds", "1", "--out", str(out)])
    bench.main()
    torch.set_num_threads(threads)
    assert "float32" in capsys.readouterr().out
    figures = json.loads(out.read_text())
    assert figures["ratios to float32"] == {"float32": {"step": 1.0, "forward": 1.0}}
    assert set(figures["units"]) == {"bfloat16", "float16"}


def test_activation(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    bench = module("activation", monkeypatch)
    monkeypatch.setattr(bench, "ROUNDS", 1)
    bench.main()
    assert "fused / transformers' own" in capsys.readouterr().out
