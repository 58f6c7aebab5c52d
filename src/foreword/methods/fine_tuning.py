"""Full fine-tuning: every weight of the backbone moves, and no prompt is there.

Defaults: batches of 32, a rate of 5e-5 and 3 epochs, each among those that Devlin et al. 2019
(appendix A.3) found to work across tasks and the authors' code's own, and that code's linear decay
after a warm-up over a tenth of the steps, and weight decay of 0.01. Dropout inside the
backbone stays off here, for every method alike.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from foreword.methods.axes import DeltaSpec, Full
from foreword.methods.base import DeltaOptions, method


@method
class FineTuning(DeltaOptions):
    """Options of full fine-tuning: there are none."""

    paper: ClassVar[str] = "Devlin et al. 2019"
    training_defaults: ClassVar[dict[str, Any]] = {
        "epochs": 3,
        "batch_size": 32,
        "learning_rate": 5e-5,
        "schedule": "linear",
        "warmup": 0.1,
        "weight_decay": 0.01,
    }

    name: Literal["fine-tuning"]

    @property
    def moves(self) -> DeltaSpec:
        """Every weight."""
        return Full()
