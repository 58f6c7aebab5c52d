"""P-Tuning (Liu et al. 2021, "GPT Understands, Too").

Trained vectors among the input's embeddings, in the slots of a template or all in front, which a
bidirectional LSTM and an MLP make of a smaller table while they are trained. Defaults: the authors'
code for knowledge probing (section 4.1): 9 virtual tokens, two LSTM layers, no dropout, batches of
8, a rate of 1e-5, weight decay 5e-4, 100 epochs, the checkpoint that does best on the development
set; gradients are not clipped. It trains with Adam and decays the rate by 0.98 each epoch; here it
is AdamW and a linear decay.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from foreword.methods.axes import (
    LSTM,
    AnyEmbeddingsInit,
    Embeddings,
    InjectionSpec,
    InputSites,
    Positions,
    PTuningEncoder,
    RandomInit,
)
from foreword.methods.base import PromptOptions, method


@method
class PTuning(PromptOptions):
    """Options of P-Tuning."""

    enters: ClassVar[type[InjectionSpec]] = Embeddings
    paper: ClassVar[str] = "Liu et al. 2021"
    training_defaults: ClassVar[dict[str, Any]] = {
        "epochs": 100,
        "batch_size": 8,
        "learning_rate": 1e-5,
        "schedule": "linear",
        "weight_decay": 5e-4,
        "clip": None,
    }

    name: Literal["p-tuning"]
    length: int = Field(9, ge=1, le=4096, description="virtual tokens")
    positions: Positions = "auto"
    sites: InputSites = None
    reparameterization: PTuningEncoder = LSTM()
    init: AnyEmbeddingsInit = RandomInit()
