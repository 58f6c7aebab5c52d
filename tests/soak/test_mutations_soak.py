"""Thousands of odd situations of every verb; what they keep to is in `tests/mutations`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "mutations"))

from world import VERBS, cached, make, try_seed

pytestmark = [pytest.mark.soak, pytest.mark.usefixtures("with_pictures")]
FIRST, NUMBER = 1000, 400
"""The first seed, and how many seeds of each verb."""


@pytest.mark.parametrize("verb", VERBS)
def test_many_situations(
    verb: str, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path_factory.mktemp(f"many-{verb}")
    world = make(folder)
    wrong = []
    with cached(folder / "backbone"):
        for seed in range(FIRST, FIRST + NUMBER):
            case = folder / "case"
            case.mkdir()
            try:
                try_seed(verb, seed, world, case)
            except AssertionError as error:
                wrong.append(str(error))
            shutil.rmtree(case)
    with capsys.disabled():
        print(f"{verb}: {NUMBER} situations, {len(wrong)} wrong")
    assert not wrong, "\n\n".join(wrong)
