"""What every injection can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from torch import Tensor

from foreword.backbone import Backbone, PromptKeyValues
from foreword.errors import ArtifactError


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


def expect_shapes(tensors: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ArtifactError unless there are just these tensors, of these shapes."""
    if set(tensors) != set(expected):
        raise ArtifactError(
            f"prompt.safetensors: expected tensors {sorted(expected)}, found "
            f"{str(sorted(tensors))[:200]}"
        )
    for name, want in expected.items():
        if tuple(tensors[name].shape) != want:
            raise ArtifactError(
                f"prompt.safetensors: {name} has shape {list(tensors[name].shape)}, but this "
                f"backbone and length need {list(want)}"
            )
