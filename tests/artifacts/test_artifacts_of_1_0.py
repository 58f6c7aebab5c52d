"""Artifacts that format 1.0 wrote load and answer as they did then.

Each was trained for a few steps: a prefix of `foreword/mini` made by an MLP, P-Tuning v2 in two
layers under a head on `foreword/mini-mlm`, and P-Tuning with slots on `foreword/mini-seq2seq`.
`answers.json` holds what they answered when they were written.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from foreword.artifacts.manifest import read_manifest
from foreword.errors import ArtifactError, UserError
from foreword.session import load

FOLDER = Path(__file__).parent / "of_1_0"
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


def test_axes_have_the_names_of_today() -> None:
    found = {name: read_manifest(FOLDER / name).axes for name in NAMES}
    axes = ("injection", "placement", "readout", "delta")
    assert {name: tuple(one[axis] for axis in axes) for name, one in found.items()} == {
        "prefix": ("keys_values", "prefix", "generation", "none"),
        "head": ("keys_values", "prefix", "sequence_head", "none"),
        "slots": ("embeddings", "in_text", "generation", "none"),
    }


def grown(value: Any) -> Any:
    """The same data with a new name in every mapping."""
    if isinstance(value, dict):
        return {name: grown(inner) for name, inner in value.items()} | {"novelty": {"of": [1]}}
    return [grown(inner) for inner in value] if isinstance(value, list) else value


def written(folder: Path, name: str, **changes: Any) -> Path:
    shutil.copytree(FOLDER / name, folder)
    file = folder / "foreword.json"
    manifest = json.loads(file.read_text(encoding="utf-8"))
    for section in ("method", "task", "decoding", "tokens", "backbone"):
        manifest[section] = grown(manifest[section])
    file.write_text(json.dumps({**manifest, "novelty": 1, **changes}), encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_a_later_minor_version_loads_without_what_it_added(name: str, tmp_path: Path) -> None:
    folder = written(tmp_path / "later", name, format="1.9")
    old, new = read_manifest(FOLDER / name), read_manifest(folder)
    assert (new.method, new.task, new.decoding) == (old.method, old.task, old.decoding)
    if name == "slots":  # whose start is a `text` with a `text` in it, as a union's tag has it
        answers_as_then(folder, name)


@pytest.mark.parametrize("format", ["1.0", "1.1"])
def test_an_unknown_option_of_a_known_version_is_refused(format: str, tmp_path: Path) -> None:
    folder = written(tmp_path / "damaged", "prefix", format=format)
    with pytest.raises(ArtifactError, match=r"is damaged:[\s\S]*method\.novelty: no such name"):
        read_manifest(folder)
    wrong = json.loads((folder / "foreword.json").read_text(encoding="utf-8"))
    wrong["format"], wrong["method"]["length"] = "1.9", "many"
    (folder / "foreword.json").write_text(json.dumps(wrong), encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"method\.length: expected a whole number"):
        read_manifest(folder)
