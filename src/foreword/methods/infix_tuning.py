"""Infix-tuning (Li & Liang 2021, section 7.3), which Prefix-Tuning is compared with there.

Trained keys and values at every layer, between source and target: the answer attends to them, the
source does not. Defaults: Prefix-Tuning's, and 10 virtual tokens: the paper compares
1, 10 and 20 (its table 5).
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from foreword.methods.axes import (
    MLP,
    BetweenTexts,
    InjectionSpec,
    KeysValues,
    KeysValuesInit,
    PlacementSpec,
    Positions,
    PromptDropout,
    RandomInit,
    RowsChoice,
)
from foreword.methods.base import PromptOptions, method
from foreword.methods.prefix_tuning import PrefixTuning


@method
class InfixTuning(PromptOptions):
    """Options of infix-tuning."""

    enters: ClassVar[type[InjectionSpec]] = KeysValues
    paper: ClassVar[str] = "Li & Liang 2021, section 7.3"
    training_defaults: ClassVar[dict[str, Any]] = PrefixTuning.training_defaults

    name: Literal["infix-tuning"]
    length: int = Field(10, ge=1, le=4096, description="virtual tokens")
    placement: Literal["infix"] = "infix"
    positions: Positions = "auto"
    dropout: PromptDropout = 0.0
    reparameterization: RowsChoice = MLP()
    init: KeysValuesInit = RandomInit()

    @property
    def stands(self) -> PlacementSpec:
        """Between source and target."""
        return BetweenTexts()
