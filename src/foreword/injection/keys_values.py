"""Virtual tokens as keys and values of every layer (Li & Liang 2021, section 4.1).

An encoder-decoder has three prefixes, each its own: in the encoder's attention, in the decoder's,
and in the decoder's over the encoder (the authors' code for BART; P-Tuning v2 for encoders).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from foreword.backbone import Backbone, Geometry, Prompt, PromptKeyValues
from foreword.errors import ArtifactError
from foreword.injection.base import Injection, Part, expect_finite, expect_shapes
from foreword.methods.axes import Site


class KeysValues(Injection):
    """A row holds, site by site and layer by layer, a key and a value for every head.

    At each site this is PEFT's order.

    Args:
        geometry: the backbone's.
        layers: by site, which layers carry virtual tokens; all of all sites if not given.
        dropout: on keys and values, in training steps alone.
    """

    def __init__(
        self,
        geometry: Geometry,
        layers: Mapping[Site, Sequence[int]] | None = None,
        *,
        dropout: float = 0.0,
    ) -> None:
        self.geometry = geometry
        self.dropout = dropout
        every = {site: range(g.layers) for site, g in geometry.sites.items()}
        self.layers: dict[Site, tuple[int, ...]] = {
            site: tuple(chosen) for site, chosen in (layers or every).items()
        }
        self.parts = tuple(
            Part(site, len(chosen) * geometry.sites[site].layer_width)
            for site, chosen in self.layers.items()
        )

    def prompt(self, rows: Tensor) -> Prompt:
        """Keys and values of every site, from `[P, width]`."""
        return Prompt(self._sites(rows))

    def _sites(self, rows: Tensor) -> dict[Site, PromptKeyValues]:
        shares = torch.split(rows, [part.width for part in self.parts], dim=1)
        return {
            part.site: self._site(part.site, share)
            for part, share in zip(self.parts, shares, strict=True)
        }

    def _site(self, site: Site, rows: Tensor) -> PromptKeyValues:
        g, layers = self.geometry.sites[site], self.layers[site]
        widths = [g.kv_heads * g.key_dim, g.kv_heads * g.value_dim]
        sides = torch.split(rows.view(-1, len(layers), sum(widths)), widths, dim=2)
        keys, values = (
            side.reshape(-1, len(layers), g.kv_heads, dim).transpose(0, 1)
            for side, dim in zip(sides, (g.key_dim, g.value_dim), strict=True)
        )
        # Whatever measures, decodes or folds has no gradient to give to the virtual tokens.
        trained = torch.is_grad_enabled() and rows.requires_grad
        return PromptKeyValues(keys, values, layers, dropout=self.dropout if trained else 0.0)

    def tensors(self, rows: Tensor) -> dict[str, Tensor]:
        """`<site>.keys` `[layers, P, kv_heads, key_dim]`, `<site>.values`
        `[layers, P, kv_heads, value_dim]`, and `<site>.layers`."""
        found: dict[str, Tensor] = {}
        for site, tokens in self._sites(rows).items():
            found |= {
                f"{site}.keys": tokens.keys.contiguous(),
                f"{site}.values": tokens.values.contiguous(),
                f"{site}.layers": torch.tensor(tokens.layers),
            }
        return found

    def rows(self, tensors: Mapping[str, Tensor], length: int) -> Tensor:
        """`[P, width]` from the tensors of an artifact."""
        expected: dict[str, tuple[int, ...]] = {}
        for site, layers in self.layers.items():
            g = self.geometry.sites[site]
            every = (len(layers), length, g.kv_heads)
            expected |= {
                f"{site}.keys": (*every, g.key_dim),
                f"{site}.values": (*every, g.value_dim),
                f"{site}.layers": (len(layers),),
            }
        expect_shapes(tensors, expected)
        expect_finite(tensors, [name for name in expected if not name.endswith(".layers")])
        for site, layers in self.layers.items():
            stored = tensors[f"{site}.layers"].tolist()
            if stored != list(layers):
                raise ArtifactError(
                    f"prompt.safetensors: {site}.layers is {stored}, expected {list(layers)}"
                )
        return self._join(
            {site: (tensors[f"{site}.keys"], tensors[f"{site}.values"]) for site in self.layers}
        )

    def real_rows(self, backbone: Backbone, ids: list[int]) -> Tensor:
        """The backbone's own keys and values for a text: the paper's "real words" start (7.4)."""
        found = backbone.keys_values(ids)
        return self._join(
            {
                site: (found[site][0][list(layers)], found[site][1][list(layers)])
                for site, layers in self.layers.items()
            }
        )

    def _join(self, sides: Mapping[Site, tuple[Tensor, Tensor]]) -> Tensor:
        shares = [
            torch.cat([side.flatten(2) for side in sides[part.site]], dim=2)
            .transpose(0, 1)
            .flatten(1)
            for part in self.parts
        ]
        return torch.cat(shares, dim=1)
