"""bench/peft_run.py trains one prompt by foreword and by PEFT, and both learn the same."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path

import pytest
from transformers.utils import logging

ROOT = Path(__file__).parent.parent.parent
FEW = ("training.steps=3", "task.limits.train=16", "task.limits.dev=2", "method.length=4")


def test_both_learn_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    monkeypatch.delitem(sys.modules, "peft_run", raising=False)
    verbosity = logging.get_verbosity()
    sets = [part for change in (*FEW, "decoding.max_new_tokens=4") for part in ("--set", change)]
    recipe, out = str(ROOT / "recipes" / "quickstart.yaml"), tmp_path / "out"
    assert import_module("peft_run").main([recipe, *sets, "--out", str(out)]) == 0
    logging.set_verbosity(verbosity)
    report = json.loads((out / "figures.json").read_text("utf-8"))
    assert report["steps"] == 3
    losses, scores = report["last_losses"], report["scores"]
    assert losses["foreword"] == pytest.approx(losses["PEFT"], abs=1e-3)
    assert scores["foreword"] == scores["PEFT"]
    assert 0 < report["peak_over_pefts"] < 1
