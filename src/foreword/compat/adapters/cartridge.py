"""Cartridges in PEFT's format (0.21 and later)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from foreword.backbone import Backbone
from foreword.compat.adapter import adapter
from foreword.compat.adapters.prefix import KeysValuesRows
from foreword.compat.configs import PromptLearningConfig
from foreword.compat.peft_types import PeftType
from foreword.errors import ArtifactError
from foreword.methods import Cartridge, MethodChoice, axes


@dataclass
class CartridgeConfig(PromptLearningConfig):
    """Configuration of a cartridge (Eyuboglu et al. 2025).

    Attributes:
        num_frozen_tokens: how many of the first virtual tokens are not trained.
    """

    kind: ClassVar[PeftType] = PeftType.CARTRIDGE

    num_frozen_tokens: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        most = self.num_virtual_tokens
        if self.num_frozen_tokens < 0 or (most is not None and self.num_frozen_tokens > most):
            raise ValueError(
                f"CartridgeConfig.num_frozen_tokens: expected 0 to {most}, found "
                f"{self.num_frozen_tokens}"
            )


@adapter
class CartridgeAdapter(KeysValuesRows):
    """A prefix of which the first tokens are frozen; which text it stands for no file says."""

    methods = (Cartridge,)

    peft_type: Literal["CARTRIDGE"]
    num_virtual_tokens: int = Field(ge=1, le=2**17, strict=True)
    num_frozen_tokens: int = Field(1, ge=0, strict=True)

    def check(self, file: Path) -> None:
        """Besides, that no more tokens are frozen than there are."""
        super().check(file)
        if self.num_frozen_tokens > self.num_virtual_tokens:
            raise ArtifactError(
                f"{file}: num_frozen_tokens: is {self.num_frozen_tokens}, but num_virtual_tokens "
                f"is {self.num_virtual_tokens}"
            )

    def method(self, backbone: Backbone) -> MethodChoice:
        """Cartridge; on an encoder-decoder, of its decoder alone."""
        return Cartridge(
            name="cartridge",
            frozen=self.num_frozen_tokens,
            init=axes.FirstTokensInit(),
            **self.where(backbone),
        )

    @classmethod
    def config_of(cls, method: MethodChoice, sizes: dict[str, Any]) -> CartridgeConfig:
        """With as many frozen tokens as the method has."""
        assert isinstance(method, Cartridge), "it holds no other method's artifacts"
        return CartridgeConfig(**sizes, num_frozen_tokens=method.frozen)
