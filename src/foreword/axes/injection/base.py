"""What every injection can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from foreword.axes import parts
from foreword.axes.parts import Named, Part, VirtualTokens
from foreword.backbone import Backbone, Geometry, Prompt
from foreword.backbone.layout import PositionRule
from foreword.common.sites import Site
from foreword.errors import ArtifactError


class Injection(ABC):
    """Says which tensors a prompt is made of, and turns them into what a backbone takes.

    Attributes:
        kind: the name by which artifacts call it.
    """

    kind: ClassVar[str]
    many: int = 1
    """How many prompts the tensors hold, of which each row takes one."""

    @abstractmethod
    def parts(self, length: int) -> tuple[Part, ...]:
        """What P virtual tokens are made of, by site, in their order."""

    @abstractmethod
    def prompt(self, named: Named) -> Prompt | None:
        """What the backbone takes for one call, from the named tensors of all parts."""

    @abstractmethod
    def real(self, backbone: Backbone, ids: list[int]) -> dict[str, Tensor]:
        """The named tensors of the virtual tokens if they were this text."""

    def starts_from(self, other: Injection) -> bool:
        """Whether the tensors of another injection of this kind can be a start of these."""
        return self.parts(1) == other.parts(1)

    def one_of(self, named: Named, number: int) -> Named:  # noqa: ARG002
        """The named tensors of one of the prompts."""
        return named

    @property
    def sites(self) -> tuple[Site, ...]:
        """Where something enters, each once."""
        return tuple(dict.fromkeys(part.site for part in self.parts(1)))

    @property
    def width(self) -> int:
        """Numbers per virtual token, at all sites together."""
        return sum(part.width for part in self.parts(1) if isinstance(part, VirtualTokens))

    def columns(self, length: int) -> Mapping[Site, Sequence[int]]:  # noqa: ARG002
        """The token ids by which P virtual tokens stand in a site's input, where they do."""
        return {}

    def position_rules(
        self, geometry: Geometry, columns: Mapping[Site, Sequence[int]]
    ) -> tuple[PositionRule, ...]:
        """The rules that are possible, the usual one first: a decoder's positions shift, as the
        papers and PEFT have it; an encoder keeps all of its own."""
        if geometry.kind == "decoder":
            return ("shift", "keep") if geometry.takes_positions else ("shift",)
        if geometry.takes_positions:
            return ("keep", "shift")
        return ("shift",) if columns else ("keep",)

    def tensors(self, named: Named) -> dict[str, Tensor]:
        """What an artifact's `prompt.safetensors` holds: the named tensors, and `facts`."""
        return {name: tensor.contiguous() for name, tensor in named.items()} | self.facts()

    def stored(self, tensors: Named, length: int) -> dict[str, Tensor]:
        """The inverse of `tensors`: those of `length` virtual tokens.

        Raises:
            ArtifactError: a tensor is missing, superfluous, or of another shape or type.
        """
        shapes = {n: shape for part in self.parts(length) for n, shape in part.shapes.items()}
        facts = self.facts()
        expected = shapes | {name: tuple(fact.shape) for name, fact in facts.items()}
        expect_shapes(tensors, expected)
        expect_finite(tensors, list(shapes))
        for name, fact in facts.items():
            if not torch.equal(tensors[name].cpu(), fact):
                raise ArtifactError(
                    f"prompt.safetensors: {name} is {tensors[name].tolist()}, expected "
                    f"{fact.tolist()}"
                )
        return {name: tensors[name] for name in shapes}

    def facts(self) -> dict[str, Tensor]:
        """Tensors of whole numbers that an artifact holds beside those that were trained."""
        return {}

    def matrix(self, named: Named) -> Tensor:
        """All virtual tokens as one matrix `[P, width]`, each site's numbers in PEFT's order."""
        return parts.matrix(self.parts(1), named)

    def named(self, rows: Tensor) -> dict[str, Tensor]:
        """The named tensors of a matrix `[P, width]`; the inverse of `matrix`."""
        return parts.split(self.parts(rows.shape[0]), rows)

    def prompt_of(self, rows: Tensor) -> Prompt | None:
        """What the backbone takes, from a matrix `[P, width]`."""
        return self.prompt(self.named(rows))


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


def expect_finite(tensors: Mapping[str, Tensor], names: Sequence[str]) -> None:
    """Raise ArtifactError unless these tensors hold finite floating-point numbers."""
    for name in names:
        if not tensors[name].is_floating_point() or not tensors[name].isfinite().all():
            raise ArtifactError(
                f"prompt.safetensors: {name} must hold finite floating-point numbers"
            )
