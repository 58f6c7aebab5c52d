"""Adaption prompts: states that each layer's own projections turn into keys and values, which have
a softmax of their own (LLaMA-Adapter, Zhang et al. 2023, sections 3.1 and 3.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from foreword.axes.injection.base import Injection
from foreword.axes.parts import FreePart, Named, Part, VirtualTokens
from foreword.backbone import Backbone, Geometry, Prompt, PromptKeyValues
from foreword.backbone.layout import PositionRule
from foreword.backbone.projections import KeyValueProjections, states
from foreword.common.sites import Site


@dataclass(frozen=True)
class StatesPart(VirtualTokens):
    """States of P virtual tokens for chosen layers of a site: `<site>.prompts` `[layers, P, d]`.

    Attributes:
        site: where they enter.
        length: P.
        layers: the numbers of the layers that take some.
        dim: d of the states that the site's attentions read.
    """

    site: Site
    length: int
    layers: tuple[int, ...]
    dim: int

    @property
    def name(self) -> str:
        """`<site>.prompts`."""
        return f"{self.site}.prompts"

    @property
    def width(self) -> int:
        """A state of every layer."""
        return len(self.layers) * self.dim

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """`[layers, P, d]`."""
        return {self.name: (len(self.layers), self.length, self.dim)}

    def split(self, rows: Tensor) -> dict[str, Tensor]:
        """Layer by layer stand a token's states."""
        return {self.name: rows.view(-1, len(self.layers), self.dim).transpose(0, 1)}

    def join(self, named: Named) -> Tensor:
        """The inverse of `split`."""
        return named[self.name].transpose(0, 1).flatten(1)


class Adaption(Injection):
    """Each site takes states of P virtual tokens and gates, in its chosen layers.

    Args:
        projections: by site, those of the chosen layers by the layers' numbers.
        each_head: whether every head of a layer has a gate of its own.
        bounded: whether a gate counts as its tanh.
    """

    kind: ClassVar[str] = "adaption"

    def __init__(
        self,
        projections: Mapping[Site, Mapping[int, KeyValueProjections]],
        *,
        each_head: bool,
        bounded: bool,
    ) -> None:
        self.projections = {site: dict(layers) for site, layers in projections.items()}
        self.each_head, self.bounded = each_head, bounded

    def parts(self, length: int) -> tuple[Part, ...]:
        """`<site>.prompts` and `<site>.gates` `[layers, heads or 1]` of each site."""
        every_part: list[Part] = []
        for site, layers in self.projections.items():
            one = next(iter(layers.values()))
            heads = one.heads if self.each_head else 1
            every_part.append(StatesPart(site, length, tuple(layers), one.width))
            every_part.append(FreePart(site, "gates", (len(layers), heads)))
        return tuple(every_part)

    def prompt(self, named: Named) -> Prompt:
        """Keys, values and gates of every site."""
        sites = {}
        for site, layers in self.projections.items():
            pairs = [
                projections.of(rows)
                for projections, rows in zip(layers.values(), named[f"{site}.prompts"], strict=True)
            ]
            keys, values = (
                torch.stack([side.to(pairs[0][0].device) for side in sides])
                for sides in zip(*pairs, strict=True)
            )
            gates = named[f"{site}.gates"]
            gates = gates.tanh() if self.bounded else gates
            heads = next(iter(layers.values())).heads
            sites[site] = PromptKeyValues(keys, values, tuple(layers), gates.expand(-1, heads))
        return Prompt(sites)

    def position_rules(
        self,
        geometry: Geometry,  # noqa: ARG002
        columns: Mapping[Site, Sequence[int]],  # noqa: ARG002
    ) -> tuple[PositionRule, ...]:
        """The text keeps its positions: nothing stands before it."""
        return ("keep",)

    def facts(self) -> dict[str, Tensor]:
        """`<site>.layers`: the numbers of the layers."""
        return {
            f"{site}.layers": torch.tensor(tuple(layers))
            for site, layers in self.projections.items()
        }

    def real(self, backbone: Backbone, ids: list[int]) -> dict[str, Tensor]:
        """The states that the chosen layers read of a text."""
        read = states(backbone, tuple(self.projections), ids)
        return {
            f"{site}.prompts": read[site][list(layers)] for site, layers in self.projections.items()
        }
