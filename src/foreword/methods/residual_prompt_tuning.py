"""Residual prompt tuning (Razdaibiedina et al. 2023, "Residual Prompt Tuning: Improving Prompt
Tuning with Residual Reparameterization").

Prompt tuning whose virtual tokens go through a shallow network with a skip connection while they
are trained; the artifact holds the outcome. Defaults: the authors' code (its script and the
arguments of train.py): 10 virtual tokens that start from entries of the vocabulary, one network for
all of them with a bottleneck of 800, ReLU and a layer norm, a constant rate of 0.3, weight decay
1e-5, batches of 8, 20 epochs; gradients are not clipped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from foreword.axes.reparam.options import REPARAMETERIZATIONS
from foreword.common.choices import OptionsIn
from foreword.methods.axes import (
    Embeddings,
    EmbeddingsInit,
    InjectionSpec,
    InputSites,
    Positions,
    ReparameterizationSpec,
    VocabularyInit,
    reparameterization,
)
from foreword.methods.base import PromptOptions, method

if TYPE_CHECKING:
    from foreword.axes.parts import VirtualTokens, Wanted
    from foreword.axes.reparam.base import Rows


@reparameterization
class Residual(ReparameterizationSpec):
    """A table, and a shallow network with a skip connection around it (section 3)."""

    kind: Literal["residual"] = "residual"
    bottleneck: int = Field(800, ge=1, le=65536, description="width of the hidden layer")
    shared: bool = Field(True, description="one network for all virtual tokens, or one for each")
    layer_norm: bool = Field(True, description="after the second linear layer")
    dropout: float = Field(0.0, ge=0, lt=1, description="before the layer norm")

    def rows(self, part: VirtualTokens, wanted: Wanted) -> Rows:  # noqa: ARG002
        """The table and its networks."""
        from foreword.axes.reparam.residual import Residual as Module

        return Module(
            part.length,
            part.width,
            self.bottleneck,
            shared=self.shared,
            layer_norm=self.layer_norm,
            dropout=self.dropout,
        )


@method
class ResidualPromptTuning(PromptOptions):
    """Options of residual prompt tuning."""

    enters: ClassVar[type[InjectionSpec]] = Embeddings
    paper: ClassVar[str] = "Razdaibiedina et al. 2023"
    training_defaults: ClassVar[dict[str, Any]] = {
        "epochs": 20,
        "batch_size": 8,
        "learning_rate": 0.3,
        "schedule": "constant",
        "weight_decay": 1e-5,
        "clip": None,
    }

    name: Literal["residual-prompt-tuning"]
    length: int = Field(10, ge=1, le=4096, description="virtual tokens")
    positions: Positions = "auto"
    sites: InputSites = None
    reparameterization: Annotated[
        ReparameterizationSpec, OptionsIn(REPARAMETERIZATIONS, "kind", (Residual,))
    ] = Residual()
    init: EmbeddingsInit = VocabularyInit()
