"""The embedding-only ablation of Prefix-Tuning (Li & Liang 2021, section 7.2).

Virtual tokens are trained at the input alone, and the frozen layers compute what follows from them.
Defaults: Prefix-Tuning's, and 10 virtual tokens: the paper compares 1, 10 and 20 (its table 5).
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from foreword.methods.axes import (
    MLP,
    AnyEmbeddingsInit,
    BeforeText,
    BetweenTexts,
    Embeddings,
    InjectionSpec,
    InputSites,
    PlacementSpec,
    Positions,
    RandomInit,
    RowsChoice,
)
from foreword.methods.base import PromptOptions, method
from foreword.methods.prefix_tuning import PrefixTuning


@method
class EmbeddingOnly(PromptOptions):
    """Options of the embedding-only ablation."""

    enters: ClassVar[type[InjectionSpec]] = Embeddings
    paper: ClassVar[str] = "Li & Liang 2021, section 7.2"
    training_defaults: ClassVar[dict[str, Any]] = PrefixTuning.training_defaults

    name: Literal["embedding-only"]
    length: int = Field(10, ge=1, le=4096, description="virtual tokens")
    placement: Literal["prefix", "infix"] = Field(
        "prefix", description="prefix: before the source; infix: between source and target"
    )
    positions: Positions = "auto"
    sites: InputSites = None
    reparameterization: RowsChoice = MLP()
    init: AnyEmbeddingsInit = RandomInit()

    @property
    def stands(self) -> PlacementSpec:
        """As `placement` says."""
        return BetweenTexts() if self.placement == "infix" else BeforeText()
