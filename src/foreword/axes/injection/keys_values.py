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
        """`<site>.keys` and `<site>.values` of each site."""
        sites = self.geometry.sites
        return tuple(
            KeysValuesPart(
                site,
                length,
                layers,
                sites[site].kv_heads,
                sites[site].key_dim,
                sites[site].value_dim,
            )
            for site, layers in self.layers.items()
        )

    def prompt(self, named: Named) -> Prompt:
        """Keys and values of every site."""
        return Prompt(
            {site: self._site(site, layers, named) for site, layers in self.layers.items()}
        )

    def _site(self, site: Site, layers: tuple[int, ...], named: Named) -> PromptKeyValues:
        keys, values = named[f"{site}.keys"], named[f"{site}.values"]
        # Whatever measures, decodes or folds has no gradient to give to the virtual tokens.
        trained = torch.is_grad_enabled() and (keys.requires_grad or values.requires_grad)
        return PromptKeyValues(keys, values, layers, dropout=self.dropout if trained else 0.0)

    def position_rules(
        self, geometry: Geometry, columns: Mapping[Site, Sequence[int]]
    ) -> tuple[PositionRule, ...]:
        """Both, too, where the prefix can lie in a cache."""
        if geometry.kind != "decoder" and self.keeps_positions:
            return ("keep", "shift")
        return super().position_rules(geometry, columns)

    def facts(self) -> dict[str, Tensor]:
        """`<site>.layers`: the numbers of the layers."""
        return {f"{site}.layers": torch.tensor(layers) for site, layers in self.layers.items()}

    def real(self, backbone: Backbone, ids: list[int]) -> dict[str, Tensor]:
        """The backbone's own keys and values for a text: the paper's "real words" start (7.4)."""
        read = backbone.keys_values(ids)
        named: dict[str, Tensor] = {}
        for site, layers in self.layers.items():
            keys, values = read[site]
            named |= {f"{site}.keys": keys[list(layers)], f"{site}.values": values[list(layers)]}
        return named
