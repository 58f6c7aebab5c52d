"""LoRA (Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models").

To chosen weight matrices is added a product of two thin ones, which move. Defaults: the paper's for
GPT-2 on E2E (its table 11): rank 4 and alpha 32 on the attention's queries and values, dropout 0.1
on the update's input, AdamW with weight decay 0.01, a rate of 2e-4 with linear decay after 500
steps of warm-up, batches of 8, 5 epochs; gradients are not clipped, as in the authors' command. The
paper's label smoothing of 0.1 is not here.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from foreword.methods.axes import DeltaSpec, LowRank, LowRankOptions
from foreword.methods.base import DeltaOptions, method


@method
class LoRA(LowRankOptions, DeltaOptions):
    """Options of LoRA."""

    paper: ClassVar[str] = "Hu et al. 2021"
    training_defaults: ClassVar[dict[str, Any]] = {
        "epochs": 5,
        "batch_size": 8,
        "learning_rate": 2e-4,
        "schedule": "linear",
        "warmup": 500,
        "weight_decay": 0.01,
        "clip": None,
    }

    name: Literal["lora"]

    @property
    def extent(self) -> str:
        """The rank."""
        return f"rank {self.rank}"

    @property
    def moves(self) -> DeltaSpec:
        """The low-rank updates."""
        return LowRank.model_validate(self.fields_of(LowRank))
