"""P-Tuning in PEFT's format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from foreword.backbone import Backbone
from foreword.compat.adapter import adapter
from foreword.compat.adapters.virtual_tokens import InputTokens
from foreword.compat.configs import PromptLearningConfig
from foreword.compat.peft_types import PeftType, PromptEncoderReparameterizationType
from foreword.methods import MethodChoice, PTuning, axes


@dataclass
class PromptEncoderConfig(PromptLearningConfig):
    """Configuration of a `PromptEncoder` (P-Tuning, Liu et al. 2021).

    Attributes:
        encoder_reparameterization_type: LSTM, or MLP.
        encoder_hidden_size: width of the network; PEFT's models take `token_dim`.
        encoder_num_layers: layers of the LSTM; the MLP has three linear ones whatever it says.
        encoder_dropout: between the LSTM's layers.
    """

    kind: ClassVar[PeftType] = PeftType.P_TUNING

    encoder_reparameterization_type: PromptEncoderReparameterizationType | str = (
        PromptEncoderReparameterizationType.MLP
    )
    encoder_hidden_size: int | None = None
    encoder_num_layers: int = 2
    encoder_dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._one_of(
            "encoder_reparameterization_type", PromptEncoderReparameterizationType, needed=True
        )
        self._count("encoder_hidden_size")
        self._count("encoder_num_layers", needed=True)
        dropout = self.encoder_dropout
        if not isinstance(dropout, (int, float)) or not 0 <= dropout <= 1:
            raise ValueError(
                "PromptEncoderConfig.encoder_dropout: expected a number from 0 to 1, found "
                f"{dropout!r}"
            )


@adapter
class PTuningAdapter(InputTokens):
    """`prompt_embeddings` is `[P, d]`, as the encoder made it; `[2 P, d]` on an encoder-decoder."""

    methods = (PTuning,)

    peft_type: Literal["P_TUNING"]
    encoder_reparameterization_type: Literal["MLP", "LSTM"] = "MLP"
    encoder_hidden_size: int | None = Field(None, ge=1, le=65536, strict=True)
    encoder_num_layers: int = Field(2, ge=1, le=64, strict=True)
    encoder_dropout: float = Field(0.0, ge=0, lt=1, strict=True)

    def method(self, backbone: Backbone) -> MethodChoice:
        """P-Tuning with the same network."""
        hidden = self.encoder_hidden_size or backbone.geometry.width
        made_by: axes.ReparameterizationSpec = axes.ReluMLP(hidden=hidden)
        if self.encoder_reparameterization_type == "LSTM":
            layers = self.encoder_num_layers
            made_by = axes.LSTM(
                hidden=hidden, layers=layers, dropout=self.encoder_dropout if layers > 1 else 0.0
            )
        return PTuning(
            name="p-tuning",
            length=self.num_virtual_tokens,
            positions="shift",
            reparameterization=made_by,
        )

    @classmethod
    def config_of(
        cls,
        source: Path,  # noqa: ARG003
        method: MethodChoice,
        sizes: dict[str, Any],
    ) -> PromptEncoderConfig:
        """How the prompt was made, too; PEFT keeps it, and does not run it on a folded prompt."""
        made_by, d = method.reparameterization, sizes["token_dim"]
        made: dict[str, Any] = {}
        if isinstance(made_by, axes.ReluMLP):
            made = {
                "encoder_reparameterization_type": "MLP",
                "encoder_hidden_size": made_by.hidden or d,
            }
        elif isinstance(made_by, axes.LSTM):
            made = {
                "encoder_reparameterization_type": "LSTM",
                "encoder_hidden_size": made_by.hidden or max(1, d // 2),
                "encoder_num_layers": made_by.layers,
                "encoder_dropout": made_by.dropout,
            }
        return PromptEncoderConfig(**sizes, **made)
