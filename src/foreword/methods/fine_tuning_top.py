"""Fine-tuning of the top layers: those before the last ones stay as they are.

FT-top2, what Li & Liang 2021 (section 5.2) compare prefixes with: the last two layers of the
decoder. Defaults: the paper's for FT-top2 on E2E (the table of hyperparameters in its appendix):
AdamW at 5e-5 with linear decay and no warm-up, batches of 10, 5 epochs.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from foreword.methods.axes import DeltaSpec, TopLayers, TopOptions
from foreword.methods.base import DeltaOptions, method


@method
class FineTuningTop(TopOptions, DeltaOptions):
    """Options of fine-tuning of the top layers."""

    paper: ClassVar[str] = "Li & Liang 2021"
    training_defaults: ClassVar[dict[str, Any]] = {
        "epochs": 5,
        "batch_size": 10,
        "learning_rate": 5e-5,
        "schedule": "linear",
        "weight_decay": 0.0,
    }

    name: Literal["fine-tuning-top"]

    @property
    def moves(self) -> DeltaSpec:
        """The last layers."""
        return TopLayers(layers=self.layers)
