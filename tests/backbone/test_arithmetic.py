"""Types that a device has no units for: what is taken instead, and what is said."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from foreword.backbone import arithmetic, load_backbone, slowness
from foreword.training.hardware import settled_precision

CPU = "cpu"


def processor(monkeypatch: pytest.MonkeyPatch, *units: str, architecture: str = "x86_64") -> None:
    features = {"architecture": architecture} | dict.fromkeys(units, True)
    monkeypatch.setattr(arithmetic, "_processor", lambda: features)


@pytest.fixture
def stored_halved(tmp_path: Path) -> Path:
    """The bundled backbone, its weights stored in bfloat16."""
    backbone = load_backbone("foreword/mini")
    backbone.model.to(torch.bfloat16).save_pretrained(tmp_path)
    backbone.tokens.tokenizer.save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("dtype", "units", "there"),
    [
        ("float32", (), True),
        ("float64", (), True),
        ("bfloat16", (), False),
        ("bfloat16", ("avx512_f", "avx512_fp16"), False),
        ("bfloat16", ("avx512_bf16",), True),
        ("bfloat16", ("amx_bf16",), True),
        ("float16", ("avx512_bf16", "amx_bf16"), False),
        ("float16", ("amx_fp16",), True),
    ],
)
def test_units_are_the_processors(
    dtype: str, units: tuple[str, ...], there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor(monkeypatch, *units)
    assert arithmetic.has_units(dtype, CPU) is there


def test_a_gpu_computes_in_float16_and_in_bfloat16_where_it_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for says in (True, False):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: says)  # noqa: B023
        assert arithmetic.has_units("bfloat16", "cuda:0") is says
        assert arithmetic.has_units("float16", "cuda:0")


def test_what_this_processor_has_is_known() -> None:
    for dtype in arithmetic.HALVES:
        assert isinstance(arithmetic.has_units(dtype, CPU), bool)


def test_auto_takes_float32_where_there_are_no_units(
    stored_halved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor(monkeypatch)
    backbone = load_backbone(stored_halved, dtype="auto")
    assert backbone.dtype == "float32"
    assert all(one.dtype == torch.float32 for one in backbone.model.parameters())
    (note,) = backbone.notes
    assert "stored in bfloat16" in note
    assert "float32" in note
    assert backbone.slowness is None
    as_stored = load_backbone(stored_halved, dtype="bfloat16")
    assert as_stored.notes == ()
    assert as_stored.slowness is not None
    assert "backbone.dtype" in as_stored.slowness
    assert backbone.sha256 == as_stored.sha256
    for wide, stored in zip(backbone.model.parameters(), as_stored.model.parameters(), strict=True):
        assert torch.equal(wide, stored.float())


def test_auto_keeps_what_the_processor_computes(
    stored_halved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor(monkeypatch, "avx512_bf16")
    backbone = load_backbone(stored_halved, dtype="auto")
    assert (backbone.dtype, backbone.notes, backbone.slowness) == ("bfloat16", (), None)


@pytest.mark.parametrize(
    ("precision", "dtype", "units", "settled"),
    [
        ("auto", "float32", ("avx512_bf16",), "bfloat16"),
        ("auto", "float32", (), "float32"),
        ("auto", "float16", ("avx512_bf16",), "float32"),
        ("auto", "auto", ("avx512_bf16",), "float32"),
        ("bfloat16", "float32", (), "bfloat16"),
        ("float32", "float32", ("avx512_bf16",), "float32"),
    ],
)
def test_precision_is_settled_by_the_device(
    precision: str,
    dtype: str,
    units: tuple[str, ...],
    settled: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    processor(monkeypatch, *units)
    assert settled_precision(precision, dtype, CPU) == settled


def test_slow_arithmetic_is_said_with_what_to_give_instead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    processor(monkeypatch)
    line = slowness("bfloat16", CPU, "training.precision", "give float32")
    assert line is not None
    assert line.startswith("training.precision: ")
    assert line.endswith("give float32")
    assert slowness("float32", CPU, "training.precision", "give float32") is None
