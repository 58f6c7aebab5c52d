"""The benchmark of starts runs and reports. No timing here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import Bench


def test_it_measures_processes(
    bench: Bench,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    starting = bench("starting")
    monkeypatch.setattr(starting, "IMPORTS", "import json")
    out = tmp_path / "starting.json"
    starting.main(["--rounds", "2", "--only", "foreword --help", "--out", str(out)])
    told = json.loads(out.read_text(encoding="utf-8"))
    assert list(told["starts"]) == ["imports", "foreword --help"]
    assert told["starts"]["imports"]["median"] == 1
    row = told["starts"]["foreword --help"]
    assert 0 < row["least"] <= row["median"] <= row["most"]
    assert row["seconds"] > 0
    assert "| foreword --help | " in capsys.readouterr().out
    with pytest.raises(RuntimeError, match="a mistake"):
        starting._run([starting.sys.executable, "-c", "raise SystemExit('a mistake')"], {})


def test_a_training_ends_after_its_first_step() -> None:
    """The benchmark takes hold of a name that is the library's own."""
    from foreword.training import loop

    assert callable(loop._Loop.one)
