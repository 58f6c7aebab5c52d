"""The benchmark of data runs and reports, and refuses starts that differ. No timing here."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

FILE = Path(__file__).parents[2] / "bench" / "data.py"


def bench() -> Any:
    spec = importlib.util.spec_from_file_location("bench_data", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_it_measures_a_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "data.json"
    bench().main(["--rows", "30", "--rounds", "0", "--out", str(out)])
    told = json.loads(out.read_text(encoding="utf-8"))
    (row,) = told["starts"]
    assert (row["rows"], row["start"], row["of_before"]) == (30, "first start", None)
    assert row["processor"] > 0
    assert "| 30 | first start | " in capsys.readouterr().out


def test_starts_are_compared_with_the_one_before_and_must_agree() -> None:
    one = {"rows": 5, "order": "a", "amount": "b", "counted": ["c"], "seconds": 1.0, "bytes": 2e6}
    starts = [
        {**one, "start": "first start", "processor": 2.0},
        {**one, "start": "second start 0", "processor": 0.1},
        {**one, "start": "second start 1", "processor": 0.3},
        {**one, "start": "before", "processor": 4.0},
    ]
    made = bench()
    made._check_same(starts)
    table = made._table(starts)
    assert [(row["start"], row["of_before"]) for row in table] == [
        ("before", 1.0),
        ("first start", 0.5),
        ("second start", 0.05),
    ]
    assert {row["megabytes"] for row in table} == {2.0}
    with pytest.raises(RuntimeError, match="differ in order"):
        made._check_same([*starts, {**starts[0], "order": "z"}])
