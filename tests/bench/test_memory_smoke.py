"""The memory benchmark runs, and counts what it says. No timing here."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import Bench


def test_it_reports_every_variant(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    memory, out = bench("memory"), tmp_path / "memory.json"
    flags = ["--shape", "tiny", "--rounds", "1", "--batch-size", "2", "--length", "3"]
    assert memory.main([*flags, "--out", str(out)]) == 0
    report = json.loads(out.read_text())
    ratios = report["ratios"]
    assert set(ratios) == {variant.name for variant in memory.variants()}
    assert {"float32", "bfloat16, recomputed", "float32 on the disk"} <= set(ratios)
    assert ratios["float32"] == {"weights": 1, "kept": 1, "peak": 1, "time": 1}
    assert ratios["bfloat16"]["weights"] == pytest.approx(0.5, abs=0.01)
    for name in ("float32", "bfloat16"):
        assert ratios[f"{name}, recomputed"]["kept"] < ratios[name]["kept"]
    assert ratios["float32 on the disk, recomputed"]["weights"] < 0.01
    table = capsys.readouterr().out
    assert "| backbone | weights | kept | peak | time |" in table


def test_bytes_are_counted(bench: Bench) -> None:
    memory = bench("memory")
    known = torch.zeros(100)
    with memory.Alive([known]) as alive:
        kept = known + 1
        assert alive.now == 400
        kept.view(10, 10).t()
        assert alive.now == 400
        for _ in range(3):
            torch.cat([kept, kept])
        assert (alive.now, alive.peak) == (400, 1200)
        del kept
        assert alive.now == 0
