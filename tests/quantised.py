"""What tests of quantised backbones share: ways to quantise, and small checkpoints."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from foreword.backbone import bundled_backbones

FOUR = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
EIGHT = {"quant_method": "bitsandbytes", "load_in_8bit": True}
TWICE = {**FOUR, "bnb_4bit_use_double_quant": True}
"""The paper's: the scales of 64 weights each are quantised to 8 bits themselves."""


def torchao(kind: str, version: int = 2) -> dict[str, Any]:
    """torchao's config as it stands in JSON."""
    quant_type = {"default": {"_type": kind, "_version": version, "_data": {}}}
    return {"quant_method": "torchao", "quant_type": quant_type}


WEIGHTS = torchao("Int8WeightOnlyConfig")


def needs(quantization: dict[str, Any]) -> None:
    """Skip where the package is not installed."""
    package = quantization["quant_method"]
    if find_spec(package) is None:
        pytest.skip(f"needs {package}, which is not installed here")


def saved(model: PreTrainedModel, folder: Path, scale: float = 1.0) -> Path:
    """A model in a folder with the bundled tokenizer, its matrices made `scale` as large."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter *= scale
    model.save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(bundled_backbones()["foreword/mini"] / file, folder / file)
    return folder


def without_packed_kernels(model: Any) -> Any:
    """PEFT's model with the kernel of 4 bits that has a backward pass, as our backbones have it: on
    CPUs with bfloat16 units bitsandbytes answers with another, which rounds to bfloat16."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model
