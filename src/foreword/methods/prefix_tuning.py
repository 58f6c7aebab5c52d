"""Prefix-Tuning (Li & Liang 2021, "Prefix-Tuning: Optimizing Continuous Prompts for Generation").

Trained keys and values before every layer's own, made by an MLP while training, on a frozen
backbone. Defaults: the paper's for E2E (the table of hyperparameters in its appendix): 5 virtual
tokens, AdamW at 8e-5 with linear decay and no warm-up, batches of 10, 5 epochs. The MLP is that of
the authors' code: from the backbone's width to 512, tanh, to all keys and values.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from foreword.methods.axes import (
    MLP,
    AttentionSites,
    ChosenLayers,
    InjectionSpec,
    KeysValues,
    KeysValuesInit,
    Positions,
    PromptDropout,
    RandomInit,
    RowsChoice,
)
from foreword.methods.base import PromptOptions, method


@method
class PrefixTuning(PromptOptions):
    """Options of prefix-tuning."""

    enters: ClassVar[type[InjectionSpec]] = KeysValues
    paper: ClassVar[str] = "Li & Liang 2021"
    training_defaults: ClassVar[dict[str, Any]] = {
        "epochs": 5,
        "batch_size": 10,
        "learning_rate": 8e-5,
        "schedule": "linear",
        "warmup": 0,
        "weight_decay": 0.0,
        "loss": "sequence_sum",
    }

    name: Literal["prefix-tuning"]
    length: int = Field(5, ge=1, le=4096, description="virtual tokens")
    positions: Positions = "auto"
    dropout: PromptDropout = 0.0
    sites: AttentionSites = None
    layers: ChosenLayers = None
    reparameterization: RowsChoice = MLP()
    init: KeysValuesInit = RandomInit()
