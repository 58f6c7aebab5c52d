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

from foreword.errors import UserError
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


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ({"batch_size": 0}, "batch_size: must be at least 1, found 0"),
        ({"batch_size": -1}, "batch_size: must be at least 1, found -1"),
        ({"batch_size": 10**9}, "batch_size: must be at most 1000000, found 1000000000"),
        ({"seed": -1}, "seed: must be at least 0, found -1"),
        ({"do_sample": True, "temperature": 1e-30}, "temperature: must be at least 0.001, found"),
    ],
)
def test_a_call_with_numbers_out_of_bounds_is_refused(call: dict[str, Any], said: str) -> None:
    prompt = load(FOLDER / "prefix", device="cpu")
    for asked in (prompt.generate, prompt.answer, prompt.evaluate):
        with pytest.raises(UserError, match=said):
            asked([], **call)
    if "batch_size" in call:
        with pytest.raises(UserError, match=said):
            load(FOLDER / "head", device="cpu").predict([], **call)
