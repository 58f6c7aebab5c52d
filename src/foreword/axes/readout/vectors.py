"""The answer is a vector: the backbone's own last states, pooled. Nothing is trained for it.

A pair to train on is two rows, a text and one that belongs to it, one after the other. What a
first row's label says, where it has one, is how alike the two are.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from foreword.axes.readout.head import StateReader, pooled
from foreword.backbone import Backbone, Call
from foreword.backbone.layout import Layout


class Vectors(StateReader):
    """A vector for each row, the mean of its marked states.

    Args:
        loss: by what pairs are learned.
        scale: what cosines are multiplied by.
        normalise: whether a vector is divided by its length.
    """

    kind: ClassVar[str] = "vectors"

    def __init__(
        self,
        loss: Literal["info_nce", "cosent", "cosine"] = "info_nce",
        *,
        scale: float = 20.0,
        normalise: bool = True,
    ) -> None:
        super().__init__()
        self.learns, self.scale, self.normalise = loss, scale, normalise

    @property
    def weighs_examples(self) -> bool:
        """Where the other pairs of a batch are what a pair is told apart from."""
        return self.learns != "cosine"

    def loss(self, backbone: Backbone, call: Call) -> Tensor:
        """The loss of each pair of a batch: `[pairs]`."""
        vectors = self._vectors(self.taken(backbone, call), call)
        first, second = vectors[0::2], vectors[1::2]
        if self.learns == "info_nce":
            return info_nce(first, second, self.scale, same=_shares_a_text(call.layout))
        cosines = nn.functional.cosine_similarity(first, second)
        assert call.layout.labels is not None, "it is learned how alike pairs are"
        similarities = call.layout.labels.to(cosines)
        if self.learns == "cosine":
            return (cosines - similarities).square()
        return cosent(cosines, similarities, self.scale).expand(len(cosines))

    def answers(self, taken: Tensor, call: Call) -> list[Tensor]:
        """The vector of each row: `[width]`."""
        vectors = self._vectors(taken, call)
        if self.normalise:
            vectors = nn.functional.normalize(vectors, dim=-1)
        return list(vectors.cpu())

    def _vectors(self, states: Tensor, call: Call) -> Tensor:
        vectors = pooled(states, call.layout)
        return vectors.float() if vectors.element_size() < 4 else vectors


def info_nce(
    first: Tensor, second: Tensor, scale: float = 20.0, *, same: Tensor | None = None
) -> Tensor:
    """Negative log-likelihood of each text's own among the second ones of its batch: `[N]`.

    InfoNCE (van den Oord et al. 2018, section 2.3) with cosines; its mean is sentence-transformers'
    MultipleNegativesRankingLoss.

    Args:
        first: vectors `[N, d]`.
        second: vectors of the texts that belong to them, `[N, d]`.
        scale: what cosines are multiplied by, one over the temperature.
        same: `[N, N]` bool; True where a second text is no negative of a first one, since two
            pairs share a text.
    """
    unit = nn.functional.normalize
    scores = scale * unit(first, dim=-1) @ unit(second, dim=-1).T
    if same is not None:
        own = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
        scores = scores.masked_fill(same & ~own, -torch.inf)
    right = torch.arange(len(scores), device=scores.device)
    return nn.functional.cross_entropy(scores, right, reduction="none")


def cosent(cosines: Tensor, similarities: Tensor, scale: float = 20.0) -> Tensor:
    """How far the cosines of pairs are from the order of their similarities; a number.

    CoSENT (Su 2022), as sentence-transformers' CoSENTLoss: log(1 + Σ exp(scale (cᵢ - cⱼ))) over all
    pairs of which i should be less alike than j.

    Args:
        cosines: of each pair, `[N]`.
        similarities: how alike each pair is, `[N]`.
        scale: what cosines are multiplied by.
    """
    differences = scale * (cosines[:, None] - cosines[None, :])
    wanted = similarities[:, None] < similarities[None, :]
    return torch.cat([cosines.new_zeros(1), differences[wanted]]).logsumexp(0)


def _shares_a_text(layout: Layout) -> Tensor:
    """For each pair of pairs whether their first, or their second texts are the same: `[N, N]`."""
    ids = layout.input_ids.masked_fill(~layout.attention_mask, -1)
    first, second = (_same(side) for side in (ids[0::2], ids[1::2]))
    return first | second


def _same(rows: Tensor) -> Tensor:
    numbers: Tensor = torch.unique(rows, dim=0, return_inverse=True)[1]
    return numbers[:, None] == numbers[None, :]
