"""Virtual tokens as input embeddings (Lester et al. 2021, section 3).

In a causal decoder no virtual token sees the text after it, so its keys and values are the same
for every row. They are computed once a step, from the P embeddings alone, and enter as a prefix
does: no row pays for the prompt's positions, padding cannot come between prompt and text, and
decoding and serving know one kind of prompt. The gradient flows back through them to the
embeddings.

In an encoder every virtual token sees the text, so they have columns of the input; the decoder of
an encoder-decoder sees the encoder's text, so there too. Virtual tokens that stand inside the text
(P-Tuning's templates, Liu et al. 2021, section 3) see what is before them, in a decoder too, and
the text has their ids already. A decoder that takes no keys and values (Mamba) reads them before
the text of each row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from foreword.axes.injection.base import Injection
from foreword.axes.parts import EmbeddingsPart, Named, Part
from foreword.backbone import Backbone, Geometry, Prompt
from foreword.backbone.layout import PositionRule
from foreword.common.sites import Site


class Embeddings(Injection):
    """Rows of the width of the backbone's input embeddings.

    Args:
        backbone: reads them.
        sites: whose input they stand in: the encoder's, where there is one, if not given.
        inside: whether they have columns of their own among the text, in a decoder, too.
        between: whether these columns stand between source and target, and are not the text's.
    """

    kind: ClassVar[str] = "embeddings"

    def __init__(
        self,
        backbone: Backbone,
        sites: Sequence[Site] | None = None,
        *,
        inside: bool = False,
        between: bool = False,
    ) -> None:
        self.backbone, self.inside, self.between = backbone, inside or between, between
        main: Site = "decoder" if backbone.geometry.kind == "decoder" else "encoder"
        self.chosen: tuple[Site, ...] = tuple(sites or (main,))

    def parts(self, length: int) -> tuple[Part, ...]:
        """`<site>.embeddings` of each site."""
        width = self.backbone.geometry.width
        return tuple(EmbeddingsPart(site, length, width) for site in self.chosen)

    def prompt(self, named: Named) -> Prompt:
        """Keys and values that a decoder computes for embeddings `[P, width]`; or the embeddings,
        those of one site after those of the other."""
        rows = [named[f"{site}.embeddings"] for site in self.chosen]
        if self.backbone.geometry.keeps_embeddings and not self.inside:
            return Prompt({"decoder": self.backbone.read_embeddings(rows[0])})
        return Prompt(embeddings=torch.cat(rows))

    def columns(self, length: int) -> Mapping[Site, Sequence[int]]:
        """Ids from the vocabulary's size on, except where the text has them, and where a decoder
        keeps their keys and values."""
        g = self.backbone.geometry
        if self.between:
            return {"decoder": range(g.vocabulary, g.vocabulary + length)}
        if g.keeps_embeddings or self.inside:
            return {}
        firsts = range(g.vocabulary, g.vocabulary + length * len(self.chosen), max(1, length))
        return {
            site: range(first, first + length)
            for site, first in zip(self.chosen, firsts, strict=False)
        }

    def position_rules(
        self, geometry: Geometry, columns: Mapping[Site, Sequence[int]]
    ) -> tuple[PositionRule, ...]:
        """In a decoder they take positions as real tokens do."""
        if geometry.kind == "decoder":
            return ("shift",)
        return super().position_rules(geometry, columns)

    def real(self, backbone: Backbone, ids: list[int]) -> dict[str, Tensor]:
        """The backbone's own embeddings of a text, the same at every site: `[len(ids), width]`."""
        rows = backbone.embeddings(ids)
        return {f"{site}.embeddings": rows for site in self.chosen}
