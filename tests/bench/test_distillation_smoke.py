"""The benchmark of texts as prompts runs, and its prompts are what they are called. No timing."""

import json
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import Bench


def test_it_runs_and_reports_every_variant(
    bench: Bench,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    distillation, out = bench("distillation"), tmp_path / "figures.json"
    flags = ["--lengths", "4,16", "--rounds", "1", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["distillation.py", *flags])
    distillation.main()
    rows = json.loads(out.read_text(encoding="utf-8"))
    assert [row["variant"] for row in rows] == [
        "no text",
        "4 virtual tokens",
        "16 virtual tokens",
        "text, keys and values",
        "text, in the context",
    ]
    memory = [row["megabytes"] for row in rows]
    assert memory[0] < memory[1] < memory[2] < memory[3] == memory[4]
    assert "virtual tokens" in capsys.readouterr().out


def test_a_kept_text_says_what_the_text_in_the_context_says(bench: Bench, mini: object) -> None:
    calls = bench("distillation").variants(mini, list(range(40, 80)), [5, 6, 7], [8])
    with torch.no_grad():
        kept, whole = (
            mini.logits(calls[name][0])[0, -1]  # type: ignore[attr-defined]
            for name in ("text, keys and values", "text, in the context")
        )
    torch.testing.assert_close(kept, whole, rtol=0, atol=1e-5 * max(1.0, whole.abs().max().item()))
