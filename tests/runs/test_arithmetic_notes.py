"""What a run and a verb say of types that the device has no units for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from foreword.backbone import Backbone, arithmetic, load_backbone
from foreword.cli.loading import complain_of_slowness
from foreword.common.progress import Silent
from foreword.recipe import Recipe, parse_recipe
from foreword.recipe.yaml_text import read_yaml
from foreword.runs.preparing import load, prepare
from foreword.runs.resuming import about
from foreword.runs.run import train
from foreword.training.hardware import Hardware

QUICKSTART = Path(__file__).parent.parent.parent / "recipes" / "quickstart.yaml"
FEW = ("task.limits.train=4", "task.limits.dev=2", "task.limits.test=2")


def recipe(*overrides: str) -> Recipe:
    return parse_recipe(read_yaml(QUICKSTART), [*FEW, *overrides])


@pytest.fixture
def no_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arithmetic, "_processor", lambda: {"architecture": "x86_64"})


@pytest.mark.usefixtures("no_units")
@pytest.mark.parametrize(
    ("precision", "line"),
    [
        ("float32", None),
        ("auto", "training.precision: auto is float32 here"),
        ("bfloat16", "training.precision: this processor has no units for bfloat16"),
    ],
)
def test_a_run_says_how_it_computes(precision: str, line: str | None) -> None:
    backbone = load_backbone("foreword/mini")
    ready = prepare(recipe(f"training.precision={precision}"), "cpu", backbone, Silent())
    notes = [note for note in ready.notes if note.startswith(("training.precision", "backbone."))]
    assert len(notes) == (line is not None)
    assert line is None or notes[0].startswith(line)


def test_a_run_says_how_it_computes_where_weights_are_as_they_are_stored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        arithmetic, "_processor", lambda: {"architecture": "x86_64", "avx512_bf16": True}
    )
    precisions = []

    def hardware(device: str, precision: str, *, tracker: str | None) -> Hardware:
        precisions.append(precision)
        raise StopIteration

    monkeypatch.setattr(Hardware, "of", hardware)
    auto = recipe("training.precision=auto", "backbone.dtype=auto")
    backbone = load_backbone("foreword/mini", dtype="auto")
    assert backbone.dtype == "float32"
    for loaded in (None, backbone):
        with pytest.raises(StopIteration):
            train(auto, backbone=loaded, device="cpu")
    notes = prepare(auto, "cpu", backbone, Silent()).notes
    assert precisions == ["float32", "float32"]
    assert "training.precision: auto is float32 here" in notes


@pytest.mark.parametrize(
    ("method", "dtype"),
    [
        ("fine-tuning", "float32"),
        ("bitfit", "float32"),
        ({"name": "prompt-tuning", "delta": {"kind": "top", "layers": 1}}, "float32"),
        ("lora", "float16"),
        ("adapter", "float16"),
        ("prefix-tuning", "float16"),
    ],
)
def test_a_backbone_whose_own_weights_move_is_loaded_as_float32(
    method: str | dict[str, Any], dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arithmetic, "_processor", lambda: {"amx_fp16": True})
    raw = {**read_yaml(QUICKSTART), "method": method}
    auto = parse_recipe(raw, [*FEW, "backbone.dtype=auto"])
    assert load(auto, "cpu").dtype == dtype
    assert load(parse_recipe(raw, [*FEW, "backbone.dtype=float16"]), "cpu").dtype == "float16"
    notes = prepare(auto, "cpu", load_backbone("foreword/mini", dtype="float16"), Silent()).notes
    line = "backbone.dtype: the backbone's own weights move in float16"
    assert any(note.startswith(line) for note in notes) == (dtype == "float32")


@pytest.mark.usefixtures("no_units")
def test_a_verb_says_that_a_type_is_slow(capsys: pytest.CaptureFixture[str]) -> None:
    complain_of_slowness(load_backbone("foreword/mini"))
    assert capsys.readouterr().err == ""
    complain_of_slowness(load_backbone("foreword/mini", dtype="bfloat16"))
    assert capsys.readouterr().err.startswith("note: backbone.dtype: this processor has no units")


def test_a_checkpoint_says_in_which_types_it_was_made(mini: Backbone) -> None:
    for precision in ("float32", "bfloat16"):
        made = about(recipe(), mini, {}, Hardware.of("cpu", precision))["made_with"]
        assert (made["backbone.dtype"], made["precision"]) == ("float32", precision)
