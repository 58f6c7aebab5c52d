"""Bottleneck adapters (Houlsby et al. 2019, "Parameter-Efficient Transfer Learning for NLP").

After the attention of each layer and after its feed-forward part stands a small network: down to a
bottleneck, a nonlinearity, up again, and its input added. It moves, and the layer norms with it
(section 2.1). Defaults: the paper's on GLUE (section 3.2): batches of 32, linear decay after a
warm-up over a tenth of the steps, 20 epochs (it compares 3 and 20), a rate of 3e-4 (it searches
3e-5 to 3e-3, and bottlenecks of 8, 64 and 256 at a width of 1024); weight decay 0.01 as in the
authors' code.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from foreword.methods.axes import BottleneckOptions, Bottlenecks, DeltaSpec
from foreword.methods.base import DeltaOptions, method


@method
class Adapter(BottleneckOptions, DeltaOptions):
    """Options of bottleneck adapters."""

    paper: ClassVar[str] = "Houlsby et al. 2019"
    training_defaults: ClassVar[dict[str, Any]] = {
        "epochs": 20,
        "batch_size": 32,
        "learning_rate": 3e-4,
        "schedule": "linear",
        "warmup": 0.1,
        "weight_decay": 0.01,
    }

    name: Literal["adapter"]

    @property
    def moves(self) -> DeltaSpec:
        """The adapters."""
        return Bottlenecks.model_validate(self.fields_of(Bottlenecks))
