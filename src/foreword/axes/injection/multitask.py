"""Input embeddings of several tasks: a shared prompt times a matrix of low rank of each task
(Wang et al. 2023, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from foreword.axes.injection.base import Injection
from foreword.axes.injection.embeddings import Embeddings
from foreword.axes.parts import FreePart, Named, Part
from foreword.backbone import Backbone
from foreword.common.sites import Site

START = 0.02
"""Standard deviation of the tasks' factors before training, as in PEFT."""


class MultitaskEmbeddings(Embeddings):
    """Of each site `<site>.embeddings` `[P, d]`, which all tasks share, `<site>.task_columns`
    `[K, P, r]` and `<site>.task_rows` `[K, r, d]`.

    The virtual tokens of task k are `embeddings ∘ (task_columns[k] @ task_rows[k])`.

    Args:
        backbone: reads them.
        sites: see `Embeddings`.
        inside: see `Embeddings`.
        many: K.
        rank: r.
    """

    kind: ClassVar[str] = "multitask_embeddings"

    def __init__(
        self,
        backbone: Backbone,
        sites: Sequence[Site] | None = None,
        *,
        inside: bool = False,
        many: int = 1,
        rank: int = 1,
    ) -> None:
        super().__init__(backbone, sites, inside=inside)
        self.many, self.rank = many, rank

    def parts(self, length: int) -> tuple[Part, ...]:
        """The shared prompt and the tasks' factors, site by site."""
        width = self.backbone.geometry.width
        return tuple(
            part
            for shared in super().parts(length)
            for part in (
                shared,
                FreePart(shared.site, "task_columns", (self.many, length, self.rank), std=START),
                FreePart(shared.site, "task_rows", (self.many, self.rank, width), std=START),
            )
        )

    def starts_from(self, other: Injection) -> bool:
        """Whatever tasks there were, if sites and rank are the same."""
        if not isinstance(other, MultitaskEmbeddings):
            return False
        return (self.chosen, self.rank) == (other.chosen, other.rank)

    def one_of(self, named: Named, number: int) -> Named:
        """The embeddings of one task."""
        return {
            f"{site}.embeddings": named[f"{site}.embeddings"]
            * (named[f"{site}.task_columns"][number] @ named[f"{site}.task_rows"][number])
            for site in self.chosen
        }
