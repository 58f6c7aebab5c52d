"""The benchmarks of growth and of what was tried run and report. No timing here."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from transformers.utils import logging

BENCH = Path(__file__).parent.parent.parent / "bench"
OWN = ("growth", "tried", "steps", "training", "floor", "shapes", "peft_steps")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Finds benchmarks; what running one sets for the whole process is set back."""
    monkeypatch.syspath_prepend(str(BENCH))
    for name in OWN:
        monkeypatch.delitem(sys.modules, name, raising=False)
    threads, verbosity = torch.get_num_threads(), logging.get_verbosity()
    yield import_module
    torch.set_num_threads(threads)
    logging.set_verbosity(verbosity)
    AcceleratorState._reset_state()


def test_every_axis_is_reported_as_ratios(
    bench: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    growth: ModuleType = bench("growth")
    options = "--shape tiny --rounds 1 --threads 1"
    assert growth.main([*options.split(), "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    report = json.loads((tmp_path / "growth-cpu.json").read_text("utf-8"))
    assert report["command"] == f"python bench/growth.py {options}"
    assert list(report["axes"]) == list(growth.AXES["tiny"])
    for axis, values in growth.AXES["tiny"].items():
        ratios = report["axes"][axis]["ratios"]
        assert list(ratios) == [str(value) for value in values]
        assert all(set(one) == {"step", "peak", "token"} for one in ratios.values())
        assert all(one["peak"] > 0 for one in ratios.values())
    assert growth.main(["--table", str(tmp_path / "growth-cpu.json")]) == 0
    assert capsys.readouterr().out == printed


def test_exponents_are_of_the_last_two_values(bench: Any) -> None:
    growth: ModuleType = bench("growth")

    def point(ours: float, bare: float) -> dict[str, dict[str, float]]:
        return {what: {"foreword": ours, "bare": bare} for what in ("step", "peak", "token")}

    found = growth.figures({"1": point(9, 9), "10": point(2, 1), "40": point(8, 16)})
    assert found["exponents"]["peak"] == {"foreword": 1.0, "bare": 2.0}
    assert found["ratios"]["40"]["token"] == 0.5


def test_what_was_tried_gives_the_same_losses(
    bench: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    tried: ModuleType = bench("tried")
    options = tried._options(["--shape", "tiny-gpt2", "--backend", "eager"])
    plain, compiled = (run()[0].item() for run in tried.compiled(options).values())
    assert math.isclose(plain, compiled, rel_tol=1e-5)
    tried.main(["--shape", "tiny-gpt2", "--backend", "eager", "--rounds", "1", "--threads", "1"])
    assert "compiled ÷ plain" in capsys.readouterr().out
