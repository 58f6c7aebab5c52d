"""The benchmarks of growth and of what was tried run and report. No timing here."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from benchmarks import Bench


def test_every_axis_is_reported_as_ratios(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    growth = bench("growth")
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


def test_exponents_are_of_the_last_two_values(bench: Bench) -> None:
    growth = bench("growth")

    def point(ours: float, bare: float) -> dict[str, dict[str, float]]:
        return {what: {"foreword": ours, "bare": bare} for what in ("step", "peak", "token")}

    found = growth.figures({"1": point(9, 9), "10": point(2, 1), "40": point(8, 16)})
    assert found["exponents"]["peak"] == {"foreword": 1.0, "bare": 2.0}
    assert found["ratios"]["40"]["token"] == 0.5


def test_what_was_tried_gives_the_same_losses(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    tried = bench("tried")
    options = tried._options(["--shape", "tiny-gpt2", "--backend", "eager"])
    plain, compiled = (run()[0].item() for run in tried.compiled(options).values())
    assert math.isclose(plain, compiled, rel_tol=1e-5)
    tried.main(["--shape", "tiny-gpt2", "--backend", "eager", "--rounds", "1", "--threads", "1"])
    assert "compiled ÷ plain" in capsys.readouterr().out
