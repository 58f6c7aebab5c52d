"""P-Tuning v2 (Liu et al. 2022, "P-Tuning: Prompt Tuning Can Be Comparable to Fine-tuning Across
Scales and Tasks").

Deep prompts: trained keys and values before every layer's own, as in Prefix-Tuning, for tasks that
a classification head answers, on encoders and decoders (section 3.2). No reparameterization by
default; the paper finds an MLP to help on some tasks and to harm on others (section 3.3). Which
layers carry a prompt is a choice: its study adds them from the last layer downwards, and finds the
deeper ones to matter most (section 4.3, figure 4). Defaults: 20 virtual tokens, a rate of 5e-3 and
batches of 32 (the authors choose rates and lengths by task); the table starts from N(0, 1), as the
authors' code does.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from foreword.methods.axes import (
    AttentionSites,
    ChosenLayers,
    InjectionSpec,
    KeysValues,
    KeysValuesInit,
    Positions,
    PromptDropout,
    RandomInit,
    RowsChoice,
    Table,
)
from foreword.methods.base import PromptOptions, method


@method
class PTuningV2(PromptOptions):
    """Options of P-Tuning v2."""

    enters: ClassVar[type[InjectionSpec]] = KeysValues
    paper: ClassVar[str] = "Liu et al. 2022"
    training_defaults: ClassVar[dict[str, Any]] = {
        "epochs": 10,
        "batch_size": 32,
        "learning_rate": 5e-3,
        "schedule": "linear",
        "weight_decay": 0.0,
    }

    name: Literal["p-tuning-v2"]
    length: int = Field(20, ge=1, le=4096, description="virtual tokens")
    positions: Positions = "auto"
    dropout: PromptDropout = 0.0
    sites: AttentionSites = None
    layers: ChosenLayers = None
    reparameterization: RowsChoice = Table(std=1.0)
    init: KeysValuesInit = RandomInit()
