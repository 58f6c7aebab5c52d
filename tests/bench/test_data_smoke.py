"""The benchmark of data runs and reports, and refuses starts that differ. No timing here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import Bench


@pytest.mark.slow
def test_it_measures_a_start(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "data.json"
    bench("data").main(["--rows", "30", "--rounds", "0", "--out", str(out)])
    told = json.loads(out.read_text(encoding="utf-8"))
    (row,) = told["starts"]
    assert (row["rows"], row["start"], row["of_before"]) == (30, "first start", None)
    assert row["processor"] > 0
    assert "| 30 | first start | " in capsys.readouterr().out


def test_starts_are_compared_with_the_one_before_and_must_agree(bench: Bench) -> None:
    one = {"rows": 5, "order": "a", "amount": "b", "counted": ["c"], "seconds": 1.0, "bytes": 2e6}
    starts = [
        {**one, "start": "first start", "processor": 2.0},
        {**one, "start": "second start 0", "processor": 0.1},
        {**one, "start": "second start 1", "processor": 0.3},
        {**one, "start": "before", "processor": 4.0},
    ]
    data = bench("data")
    data._check_same(starts)
    table = data._table(starts)
    assert [(row["start"], row["of_before"]) for row in table] == [
        ("before", 1.0),
        ("first start", 0.5),
        ("second start", 0.05),
    ]
    assert {row["megabytes"] for row in table} == {2.0}
    with pytest.raises(RuntimeError, match="differ in order"):
        data._check_same([*starts, {**starts[0], "order": "z"}])
