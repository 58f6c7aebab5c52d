"""bench/peft_run.py trains one prompt by foreword and by PEFT, and both learn the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import Bench

ROOT = Path(__file__).parent.parent.parent
FEW = ("training.steps=3", "task.limits.train=16", "task.limits.dev=2", "method.length=4")


def test_both_learn_the_same(bench: Bench, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    sets = [part for change in (*FEW, "decoding.max_new_tokens=4") for part in ("--set", change)]
    recipe, out = str(ROOT / "recipes" / "quickstart.yaml"), tmp_path / "out"
    assert bench("peft_run").main([recipe, *sets, "--out", str(out)]) == 0
    report = json.loads((out / "figures.json").read_text("utf-8"))
    assert report["steps"] == 3
    losses, scores = report["last_losses"], report["scores"]
    assert losses["foreword"] == pytest.approx(losses["PEFT"], abs=1e-3)
    assert scores["foreword"] == scores["PEFT"]
    assert 0 < report["peak_over_pefts"] < 1
