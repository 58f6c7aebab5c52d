"""The benchmarks of serving run and report everything. No timing here."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks import Bench

FEW = ["--backbone", "tiny", "--requests", "3", "--prompts", "2", "--length", "2"]
FEW += ["--threads", "1", "--clock", "cpu"]


@pytest.fixture(autouse=True)
def _peft() -> None:
    """All of them measure PEFT, too."""
    pytest.importorskip("peft")


def report_of(module: ModuleType, flags: list[str], folder: Path, name: str) -> dict[str, object]:
    assert module.main([*FEW, *flags, "--out", str(folder)]) == 0
    found: dict[str, object] = json.loads((folder / f"{name}.json").read_text("utf-8"))
    return found


def test_throughput(bench: Bench, tmp_path: Path) -> None:
    serving = bench("serving")
    flags = ["--rounds", "2", "--turns", "1", "--without", serving.CONTINUOUS]
    report = report_of(serving, flags, tmp_path, "serving-tiny-3-cpu")
    pairs = {(ratio["of"], ratio["beside"]) for ratio in report["ratios"]}
    assert pairs == {each[:2] for each in serving.BESIDE if serving.CONTINUOUS not in each}
    assert all(len(ratio["ratios"]) == 2 for ratio in report["ratios"])
    assert report["answers of one prompt that differ, engine and generate"] == 0


def test_latency_by_load(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = bench("serving_load")
    monkeypatch.setattr(load, "LOADS", (0.5, 1.2))
    report = report_of(load, ["--each", "9"], tmp_path, "serving-load-tiny-cpu")
    assert [one["load"] for one in report["loads"]] == [0.5, 1.2]
    for one in (*report["loads"], report["while prompts are added"]):
        assert one["failed"] == 0
        assert 0 < one["first, 50 %"] <= one["first, 99 %"]
    assert report["prompts added"] == 2
    assert (tmp_path / "serving-load-tiny-cpu.png").stat().st_size > 1000


def test_many_registered(bench: Bench, tmp_path: Path) -> None:
    load = bench("serving_load")
    flags = ["--registered", "12", "--rounds", "1"]
    report = report_of(load, flags, tmp_path, "serving-registered-tiny-cpu")
    assert (report["few"], report["many"]) == (10, 12)
    assert len(report["ratios"]) == 1
