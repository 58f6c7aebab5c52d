"""The `task.vector` section of a recipe: vectors of texts, learned from pairs."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from foreword.common.choices import Data

Loss = Literal["info_nce", "cosent", "cosine"]
OF_SCORES = ("pearson", "spearman")
"""What is measured of pairs with a similarity; without one, which text is found."""


class VectorSpec(Data):
    """What a text's vector is, and how it is learned."""

    pooling: Literal["mean", "first", "last"] = Field(
        "mean", description="which states make it: the mean of all, the first, or the last"
    )
    normalise: bool = Field(True, description="whether it is divided by its length")
    loss: Loss | None = Field(
        None,
        description="info_nce: a text finds its own among those of its batch; cosent: pairs are in"
        " the order of their similarities; cosine: the squared difference of cosine and"
        " similarity; null: info_nce, or with `data.similarity` cosent",
    )
    scale: float = Field(
        20.0,
        gt=0,
        le=1e6,
        description="info_nce, cosent: what cosines are multiplied by, one over the temperature",
    )

    def of(self, similarity: str | None) -> Loss:
        """The loss, where the recipe leaves it to the data.

        Args:
            similarity: the column of how alike two texts are, if there is one.
        """
        return self.loss or ("info_nce" if similarity is None else "cosent")

    def broken(self, similarity: str | None) -> str | None:
        """What is wrong with it beside such a column, if anything."""
        scored = self.of(similarity) != "info_nce"
        if scored == (similarity is not None):
            return None
        if scored:
            return f"`vector.loss: {self.loss}` learns how alike pairs are: give `data.similarity`"
        return (
            "`vector.loss: info_nce` takes every pair for one that belongs together, whatever "
            "`data.similarity` says; choose cosent or cosine, or leave `data.similarity` out"
        )


def metric_rule(metric: Any, paired: Any, similarity: Any) -> str | None:
    """What is wrong with a metric of vectors beside a column of similarities, if anything."""
    if paired is None or not isinstance(metric, str) or metric == "loss":
        return None
    if (metric in OF_SCORES) == (similarity is not None):
        return None
    if similarity is None:
        return f"`{metric}` compares with how alike pairs are: give `task.data.similarity`"
    return (
        f"`{metric}` measures which text is found, but `task.data.similarity` says how alike pairs "
        f"are; choose among {', '.join(OF_SCORES)}"
    )
