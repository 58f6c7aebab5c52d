"""What every delta can do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from foreword.backbone import Backbone
from foreword.errors import ArtifactError


class Delta(nn.Module):
    """What of the backbone's own weights moves; its parameters are those that do.

    Attributes:
        kind: the name by which artifacts and recipes call it.
        backbone: the one that moves, a copy; None where nothing does.
        origin: the one it is a copy of, untouched.
    """

    kind: ClassVar[str]
    backbone: Backbone | None = None
    origin: Backbone | None = None

    def tensors(self) -> dict[str, Tensor]:
        """What an artifact keeps of it, by name."""
        return {}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what `tensors` gave.

        Raises:
            ArtifactError: a tensor is missing, superfluous, or of another shape.
        """
        expect_names(tensors, self.tensors())

    def weights(self) -> dict[str, Tensor]:
        """The backbone's own weights as they have become, by name: those that did not stay.

        Raises:
            UserError: what moves is none of them, and cannot be put into them.
        """
        return {}

    def stated(self) -> dict[str, Any]:
        """What an artifact says of it beside its options."""
        return {}


class Moving(Delta):
    """Something moves, in a copy of the backbone that shares the memory of all that does not.

    Dropout inside the backbone stays off, as for every method.
    """

    def __init__(self, origin: Backbone, backbone: Backbone) -> None:
        super().__init__()
        self.origin, self.backbone = origin, backbone
        self._moved: dict[str, nn.Parameter] = {}

    def move(self, parameters: Iterable[tuple[str, nn.Parameter]]) -> None:
        """Take parameters as those that are trained, by the names that an artifact gives them."""
        for name, parameter in parameters:
            self._moved[name] = parameter
            self.register_parameter(name.replace(".", "/"), parameter)  # no dots are allowed there

    def train(self, mode: bool = True) -> Self:
        """Leave the backbone as it is."""
        self.training = mode
        return self

    def tensors(self) -> dict[str, Tensor]:
        """Everything that moved."""
        return dict(self._moved)

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what `tensors` gave."""
        expect_names(tensors, self._moved)
        for name, parameter in self._moved.items():
            parameter.copy_(tensors[name])


class Weights(Moving):
    """Chosen weights of the backbone's own move."""

    def __init__(self, origin: Backbone, moving: Iterable[str]) -> None:
        names = set(moving)
        origin.check_movable(names)
        backbone = origin.copied(names)
        super().__init__(origin, backbone)
        self.move((n, p) for n, p in backbone.model.named_parameters() if n in names)

    def weights(self) -> dict[str, Tensor]:
        """Everything that moved."""
        return self.tensors()


def expect_names(named: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raise ArtifactError unless both have the same names and shapes, and finite numbers."""
    wrong = sorted(
        name
        for name in {*named, *expected}
        if name not in named or name not in expected or named[name].shape != expected[name].shape
    )
    if wrong:
        raise ArtifactError(
            f"delta.safetensors: {len(wrong)} tensors are missing, superfluous or of another shape "
            f"than this backbone needs, the first of them {wrong[0]}"
        )
    for name, tensor in named.items():
        if not tensor.is_floating_point() or not tensor.isfinite().all():
            raise ArtifactError(
                f"delta.safetensors: {name} must hold finite floating-point numbers"
            )
