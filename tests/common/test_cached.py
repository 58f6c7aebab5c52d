"""What is remembered comes back as it was."""

from pathlib import Path

import pytest

from foreword.common import cached


def test_names_keep_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables of figures that were known show the measures in the order of those that were not."""
    monkeypatch.setenv("FOREWORD_CACHE", str(tmp_path))
    figures = {"seen": {"ter": 1.0, "slot_coverage": 2.0}, "not seen": {"ter": 3.0}}
    cached.remember("baselines/x.json", figures)
    assert list(cached.recall("baselines/x.json")) == ["seen", "not seen"]
    assert list(cached.recall("baselines/x.json")["seen"]) == ["ter", "slot_coverage"]
