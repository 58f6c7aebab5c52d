"""Prompt Tuning (Lester et al. 2021, "The Power of Scale for Parameter-Efficient Prompt Tuning").

Trained vectors before the input's embeddings, on a frozen backbone; nothing else. Defaults: the
paper's (section 3 and its appendix): 100 virtual tokens, started from the class labels and, after
them, from the 5,000 most common entries of the vocabulary; a constant rate of 0.3, batches of 32,
30,000 steps, the checkpoint that does best on the development set. The paper trains with Adafactor;
here it is AdamW, as everywhere.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from foreword.methods.axes import (
    Embeddings,
    EmbeddingsInit,
    InjectionSpec,
    InputSites,
    LabelsInit,
    Positions,
    Table,
    TableOnly,
)
from foreword.methods.base import PromptOptions, method


@method
class PromptTuning(PromptOptions):
    """Options of prompt tuning."""

    enters: ClassVar[type[InjectionSpec]] = Embeddings
    paper: ClassVar[str] = "Lester et al. 2021"
    training_defaults: ClassVar[dict[str, Any]] = {
        "steps": 30_000,
        "batch_size": 32,
        "learning_rate": 0.3,
        "schedule": "constant",
        "weight_decay": 1e-5,
    }

    name: Literal["prompt-tuning"]
    length: int = Field(100, ge=1, le=4096, description="virtual tokens")
    positions: Positions = "auto"
    sites: InputSites = None
    reparameterization: TableOnly = Table()
    init: EmbeddingsInit = LabelsInit()
