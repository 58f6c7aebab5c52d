"""Virtual tokens as input embeddings (Lester et al. 2021, section 3).

In a causal decoder no virtual token sees the text after it, so its keys and values are the same
for every row. They are computed once a step, from the P embeddings alone, and enter as a prefix
does: no row pays for the prompt's positions, padding cannot come between prompt and text, and
decoding and serving know one kind of prompt. The gradient flows back through them to the
embeddings.

In an encoder every virtual token sees the text, so they have columns of the input; the decoder of
an encoder-decoder sees the encoder's text, so there too. Virtual tokens that stand inside the text
(P-Tuning's templates, Liu et al. 2021, section 3) see what is before them, in a decoder too, and
the text has their ids already.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from foreword.backbone import Backbone, Prompt
from foreword.injection.base import Injection, Part, expect_finite, expect_shapes
from foreword.methods.axes import Site


class Embeddings(Injection):
    """Rows of the width of the backbone's input embeddings.

    Args:
        backbone: reads them.
        sites: whose input they stand in: the encoder's, where there is one, if not given.
        inside: whether the text has slots for them.
    """

    def __init__(
        self, backbone: Backbone, sites: Sequence[Site] | None = None, *, inside: bool = False
    ) -> None:
        self.backbone, self.inside = backbone, inside
        g = backbone.geometry
        chosen = sites or ("decoder" if g.kind == "decoder" else "encoder",)
        self.parts = tuple(Part(site, g.width) for site in chosen)

    def prompt(self, rows: Tensor) -> Prompt:
        """Keys and values that a decoder computes for embeddings `[P, width]`; or the embeddings,
        those of one site after those of the other."""
        if self.backbone.geometry.kind == "decoder" and not self.inside:
            return Prompt({"decoder": self.backbone.read_embeddings(rows)})
        return Prompt(embeddings=torch.cat(self._shares(rows)))

    def columns(self, length: int) -> Mapping[Site, Sequence[int]]:
        """Ids from the vocabulary's size on, except in a decoder, where they have no column, and
        where the text has them."""
        g = self.backbone.geometry
        if g.kind == "decoder" or self.inside:
            return {}
        firsts = range(g.vocabulary, g.vocabulary + length * len(self.parts), max(1, length))
        return {
            part.site: range(first, first + length)
            for part, first in zip(self.parts, firsts, strict=False)
        }

    def tensors(self, rows: Tensor) -> dict[str, Tensor]:
        """`<site>.embeddings` `[P, width]`."""
        return {
            f"{part.site}.embeddings": share.contiguous()
            for part, share in zip(self.parts, self._shares(rows), strict=True)
        }

    def rows(self, tensors: Mapping[str, Tensor], length: int) -> Tensor:
        """`[P, width]` from the tensors of an artifact."""
        names = [f"{part.site}.embeddings" for part in self.parts]
        expect_shapes(
            tensors,
            {name: (length, part.width) for name, part in zip(names, self.parts, strict=True)},
        )
        expect_finite(tensors, names)
        return torch.cat([tensors[name] for name in names], dim=1)

    def real_rows(self, backbone: Backbone, ids: list[int]) -> Tensor:
        """The backbone's own embeddings of a text, the same at every site: `[len(ids), width]`."""
        return backbone.embeddings(ids).repeat(1, len(self.parts))

    def _shares(self, rows: Tensor) -> tuple[Tensor, ...]:
        return torch.split(rows, [part.width for part in self.parts], dim=1)
