"""What progress counts."""

from __future__ import annotations

import pytest

from foreword.common.progress import PlainLog


def test_work_that_goes_on_counts_from_where_it_stopped(capsys: pytest.CaptureFixture[str]) -> None:
    log = PlainLog(every=0.0)
    log.begin("train", 200, 15)
    log.started -= 10.0
    log.advance(5, "loss 1.0")
    log.begin("measure", 4)
    log.advance(4)
    first, second = capsys.readouterr().err.splitlines()
    assert first == "train 20/200 loss 1.0 [0:10 spent, 6:00 left]"
    assert second == "measure 4/4 [0:00 spent, 0:00 left]"
