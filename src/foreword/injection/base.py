"""What every injection can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from torch import Tensor

from foreword.backbone import Backbone, PromptKeyValues


class Injection(ABC):
    """Turns virtual tokens `[P, width]` into what a backbone takes, and into stored tensors."""

    width: int
    """Numbers per virtual token."""

    @abstractmethod
    def prompt(self, rows: Tensor) -> PromptKeyValues | None:
        """What the backbone takes for one call, from virtual tokens `[P, width]`."""

    @abstractmethod
    def tensors(self, rows: Tensor) -> dict[str, Tensor]:
        """The folded virtual tokens by their names in an artifact's `prompt.safetensors`."""

    @abstractmethod
    def rows(self, tensors: Mapping[str, Tensor], length: int) -> Tensor:
        """The inverse of `tensors`: `[P, width]`.

        Raises:
            ArtifactError: a tensor is missing, superfluous, or of another shape or type.
        """

    @abstractmethod
    def real_rows(self, backbone: Backbone, ids: list[int]) -> Tensor:
        """What the virtual tokens would be if they were this text: `[len(ids), width]`."""
