"""The benchmarks of growth and of what was tried run and report. No timing here."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

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
    losses = {name: run() for name, run in tried.masked(options).items()}
    assert len({round(loss.item(), 5) for loss, _ in losses.values()}) == 1
    tried.main(["--shape", "tiny-gpt2", "--backend", "eager", "--rounds", "1", "--threads", "1"])
    printed = capsys.readouterr().out
    for what in ("compiled ÷ plain", "masked ÷ causal", "masked, in chunks of queries ÷ causal"):
        assert f"{what}: " in printed


def test_attention_in_chunks_of_queries_is_the_same(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = bench("tried")
    monkeypatch.setattr(tried, "QUERIES", 3)
    runs = tried.masked(tried._options(["--shape", "tiny-gpt2", "--backend", "eager"]))
    chunks = []
    whole = tried.sdpa_attention_forward

    def watched(module: Any, query: torch.Tensor, key: torch.Tensor, *given: Any, **by: Any) -> Any:
        chunks.append((query.shape[2], key.shape[2]))
        return whole(module, query, key, *given, **by)

    loss, (gradient,) = runs["causal"]()
    monkeypatch.setattr(tried, "sdpa_attention_forward", watched)
    other, (gradient_in_chunks,) = runs["masked, in chunks of queries"]()
    assert chunks == [(3, 3), (3, 6), (3, 9), (2, 11)]
    torch.testing.assert_close(other, loss, rtol=0, atol=1e-6)
    torch.testing.assert_close(gradient_in_chunks, gradient, rtol=1e-4, atol=1e-7)
