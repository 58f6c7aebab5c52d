"""BitFit (Ben Zaken et al. 2022, "BitFit: Simple Parameter-efficient Fine-tuning for
Transformer-based Masked Language-models").

Every bias of the backbone moves, those of its layer norms among them, and nothing else. Defaults:
those of the authors' tool: a rate of 1e-3, batches of 8, 16 epochs, AdamW without weight decay at a
constant rate. (The paper: batches of 16, and the best of 1e-4, 4e-4, 7e-4 and 1e-3.)
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from foreword.methods.axes import Biases, DeltaSpec
from foreword.methods.base import DeltaOptions, method


@method
class BitFit(DeltaOptions):
    """Options of BitFit: there are none."""

    paper: ClassVar[str] = "Ben Zaken et al. 2022"
    training_defaults: ClassVar[dict[str, Any]] = {
        "epochs": 16,
        "batch_size": 8,
        "learning_rate": 1e-3,
        "schedule": "constant",
        "weight_decay": 0.0,
    }

    name: Literal["bitfit"]

    @property
    def moves(self) -> DeltaSpec:
        """The biases."""
        return Biases()
