"""What `foreword distil` trains where nothing else is said. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from foreword.methods import METHODS
from foreword.procedures.distilling.reading import read_text

CHARACTERS_A_TOKEN = 8
"""More than most texts have: how much of a text is given to a start of so many tokens."""


def method(length: int, text: Path) -> dict[str, Any]:
    """Keys and values of virtual tokens that start as the text's own first ones.

    Args:
        length: how many.
        text: the file.

    Raises:
        DataError: the file cannot be read, or is empty.
    """
    if "cartridge" in METHODS:
        return {"name": "cartridge", "length": length}
    return {
        "name": "prefix-tuning",
        "length": length,
        "reparameterization": "table",
        "init": {
            "kind": "activations",
            "text": read_text(str(text))[: CHARACTERS_A_TOKEN * length],
        },
    }


def training() -> dict[str, Any]:
    """Steps and batches for two cores; the rate is that of the authors of "Cartridges"."""
    return {
        "steps": 400,
        "batch_size": 8,
        "learning_rate": 0.02,
        "schedule": "linear",
        "warmup": 0.05,
        "weight_decay": 0.0,
        "loss": "token_mean",
        "clip": 1.0,
        "evaluate_every": 100,
    }
