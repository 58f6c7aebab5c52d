"""Artifacts that format 1.0 wrote load and answer as they did then.

Each was trained for a few steps: a prefix of `foreword/mini` made by an MLP, P-Tuning v2 in two
layers under a head on `foreword/mini-mlm`, and P-Tuning with slots on `foreword/mini-seq2seq`.
`answers.json` holds what they answered when they were written.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from foreword.session import load

FOLDER = Path(__file__).parent / "artifacts_of_1_0"
KNOWN: dict[str, Any] = json.loads((FOLDER / "answers.json").read_text(encoding="utf-8"))
NAMES = ("prefix", "head", "slots")
TOLERANCE = 2e-4
"""How far a probability may lie from the stored one, on other hardware."""


def answers_as_then(folder: Path, name: str) -> None:
    prompt = load(folder, device="cpu")
    then = KNOWN["answers"][name]
    if name != "head":
        assert prompt.generate(KNOWN["inputs"]) == then
        return
    told = prompt.predict(KNOWN["inputs"])
    assert [answered.answer for answered in told] == [one["label"] for one in then]
    for answered, one in zip(told, then, strict=True):
        assert answered.probabilities == pytest.approx(one["probabilities"], abs=TOLERANCE)


@pytest.mark.parametrize("name", NAMES)
def test_answers_as_when_it_was_written(name: str) -> None:
    answers_as_then(FOLDER / name, name)
