"""Virtual tokens as keys and values of every layer (Li & Liang 2021, section 4.1).

An encoder-decoder has three prefixes, each its own: in the encoder's attention, in the decoder's,
and in the decoder's over the encoder (the authors' code for BART; P-Tuning v2 for encoders).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from foreword.axes.injection.base import Injection
from foreword.axes.parts import KeysValuesPart, Named
from foreword.backbone import Backbone, Geometry, Prompt, PromptKeyValues
from foreword.backbone.layout import PositionRule
from foreword.backbone.prompts.key_values import Sides
from foreword.common.sites import Site


class KeysValues(Injection):
    """Each site takes keys and values of P virtual tokens, in the layers chosen for it.

    Args:
        geometry: the backbone's.
        layers: by site, which layers carry virtual tokens; all of all sites if not given.
        keeps_positions: whether positions may be kept and shifted though the backbone is told
            none: all of an encoder-decoder's decoder carries a prefix, and nothing else does, so
            that it can lie in its cache, from which positions are counted.
        dropout: on keys and values, in training steps alone.
    """

    kind: ClassVar[str] = "keys_values"

    def __init__(
        self,
        geometry: Geometry,
        layers: Mapping[Site, Sequence[int]] | None = None,
        *,
        keeps_positions: bool = False,
        dropout: float = 0.0,
    ) -> None:
        self.geometry, self.keeps_positions, self.dropout = geometry, keeps_positions, dropout
        every = {site: range(g.layers) for site, g in geometry.sites.items()}
        self.layers: dict[Site, tuple[int, ...]] = {
            site: tuple(chosen) for site, chosen in (layers or every).items()
        }

    def parts(self, length: int) -> tuple[KeysValuesPart, ...]:
        """`<site>.keys` and `<site>.values` of each site; where its layers have heads of several
        shapes, `<site>.shape0.keys` and so on, in the order in which the shapes first occur."""
        parts: list[KeysValuesPart] = []
        for site, layers in self.layers.items():
            heads = self.geometry.sites[site].heads
            shapes = dict.fromkeys(heads[layer] for layer in layers)
            for number, shape in enumerate(shapes):
                alike = tuple(layer for layer in layers if heads[layer] == shape)
                several = number if len(shapes) > 1 else None
                dims = shape.kv_heads, shape.key_dim, shape.value_dim
                parts.append(KeysValuesPart(site, length, alike, *dims, several))
        return tuple(parts)

    def _own(self) -> list[KeysValuesPart]:
        """Its keys and values alone: a subclass may ask for further parts, such as a gate."""
        return [part for part in self.parts(1) if isinstance(part, KeysValuesPart)]

    def prompt(self, named: Named) -> Prompt:
        """Keys and values of every site."""
        return Prompt(
            {site: self._site(site, layers, named) for site, layers in self.layers.items()}
        )

    def _site(self, site: Site, layers: tuple[int, ...], named: Named) -> PromptKeyValues:
        parts = [part for part in self._own() if part.site == site]
        keys, values = (
            _by_layer([(part.layers, named[f"{part.within}.{side}"]) for part in parts], layers)
            for side in ("keys", "values")
        )
        # Whatever measures, decodes or folds has no gradient to give to the virtual tokens.
        grows = any(side.requires_grad for side in (*keys, *values))
        dropout = self.dropout if torch.is_grad_enabled() and grows else 0.0
        return PromptKeyValues(keys, values, layers, dropout=dropout)

    def position_rules(
        self, geometry: Geometry, columns: Mapping[Site, Sequence[int]]
    ) -> tuple[PositionRule, ...]:
        """Both, too, where the prefix can lie in a cache."""
        if geometry.kind != "decoder" and self.keeps_positions:
            return ("keep", "shift")
        return super().position_rules(geometry, columns)

    def facts(self) -> dict[str, Tensor]:
        """`<site>.layers`: the numbers of the layers; of each shape, where there are several."""
        return {f"{part.within}.layers": torch.tensor(part.layers) for part in self._own()}

    def real(self, backbone: Backbone, ids: list[int]) -> dict[str, Tensor]:
        """The backbone's own keys and values for a text: the paper's "real words" start (7.4)."""
        return self.named_of(backbone.keys_values(ids))

    def named_of(self, sites: Mapping[Site, tuple[Sides, Sides]]) -> dict[str, Tensor]:
        """The named tensors of keys and values by site, of all its layers."""
        return {
            f"{part.within}.{name}": torch.stack([side[layer] for layer in part.layers])
            for part in self._own()
            for name, side in zip(("keys", "values"), sites[part.site], strict=True)
        }


def _by_layer(shares: Sequence[tuple[tuple[int, ...], Tensor]], layers: Sequence[int]) -> Sides:
    """One side of all layers, from those of each shape of heads."""
    if len(shares) == 1:
        return shares[0][1]
    each = {layer: one for own, side in shares for layer, one in zip(own, side, strict=True)}
    return tuple(each[layer] for layer in layers)
