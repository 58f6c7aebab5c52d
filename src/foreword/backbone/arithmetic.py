"""Which types of numbers a device has units for, and what it takes where there are none."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel

HALVES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
"""The types of 16 bits. A processor without units for them computes them many times slower than
float32, which holds all of their numbers (`bench/precision.py`)."""


def has_units(dtype: str, device: torch.device | str) -> bool:
    """Whether a device computes in a type of 16 bits with units of its own, and so quickly.

    Args:
        dtype: "bfloat16" or "float16"; of any other type the answer is True.
        device: a CPU or a GPU.
    """
    kind = torch.device(device).type
    if dtype not in HALVES or kind not in ("cpu", "cuda"):
        return True
    if kind == "cuda":
        return dtype == "float16" or torch.cuda.is_bf16_supported(including_emulation=False)
    features = _processor()
    if features.get("architecture", "x86_64") == "x86_64":
        units = ("amx_bf16", "avx512_bf16") if dtype == "bfloat16" else ("amx_fp16", "avx512_fp16")
        return any(features.get(unit) for unit in units)
    known = torch.ops.mkldnn
    return bool(
        known._is_mkldnn_bf16_supported()
        if dtype == "bfloat16"
        else known._is_mkldnn_fp16_supported()
    )


def _processor() -> dict[str, Any]:
    """What torch knows of the processor, by name."""
    if hasattr(torch.cpu, "get_capabilities"):
        return dict(torch.cpu.get_capabilities())
    tests = {"avx512_bf16": "_is_avx512_bf16_supported", "amx_fp16": "_is_amx_fp16_supported"}
    return {unit: getattr(torch.cpu, name, bool)() for unit, name in tests.items()}


def widen(model: PreTrainedModel) -> str | None:
    """Make a model's weights float32, in place, where its device has no units for their type.

    Returns:
        What there is to say of it; None where they stay as they are.
    """
    stored = str(model.dtype).removeprefix("torch.")
    if has_units(stored, model.device):
        return None
    model.float()
    return (
        f"backbone.dtype: its weights are stored in {stored}, which this processor has no units "
        f"for; they are float32 here, in twice the memory ('{stored}' keeps them as they are)"
    )


def slowness(dtype: str, device: torch.device | str, field: str, instead: str) -> str | None:
    """What there is to say of arithmetic in a type that a device has no units for.

    Args:
        dtype: the type.
        device: where it is computed.
        field: what chooses the type.
        instead: what to give there.
    """
    if has_units(dtype, device):
        return None
    return (
        f"{field}: this processor has no units for {dtype} and takes many times as long as in "
        f"float32; {instead}"
    )
