"""Real text alone: no trained vector enters, and the backbone answers by itself."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from foreword.axes.injection.base import Injection
from foreword.axes.parts import Named, Part
from foreword.backbone import Backbone, Prompt
from foreword.errors import ArtifactError


class Text(Injection):
    """The injection of methods that train no virtual token: a prompt of no part."""

    kind: ClassVar[str] = "text"

    def parts(self, length: int) -> tuple[Part, ...]:  # noqa: ARG002
        """None."""
        return ()

    def prompt(self, named: Named) -> Prompt | None:  # noqa: ARG002
        """Nothing."""
        return None

    def stored(self, tensors: Named, length: int) -> dict[str, Tensor]:
        """Nothing."""
        if tensors or length:
            raise ArtifactError(
                f"prompt.safetensors: a text prompt stores no tensors, found {sorted(tensors)} "
                f"and length {length}"
            )
        return {}

    def real(self, backbone: Backbone, ids: list[int]) -> dict[str, Tensor]:  # noqa: ARG002
        """Nothing."""
        return {}
