"""Virtual tokens as input embeddings (Lester et al. 2021, section 3).

In a causal decoder no virtual token sees the text after it, so its keys and values are the same
for every row. They are computed once a step, from the P embeddings alone, and enter as a prefix
does: no row pays for the prompt's positions, padding cannot come between prompt and text, and
decoding and serving know one kind of prompt. The gradient flows back through them to the
embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from foreword.backbone import Backbone, PromptKeyValues
from foreword.errors import ArtifactError
from foreword.injection.base import Injection, expect_shapes


class Embeddings(Injection):
    """Rows of the width of the backbone's input embeddings, at positions 0 to P - 1."""

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self.width = backbone.geometry.width

    def prompt(self, rows: Tensor) -> PromptKeyValues:
        """The keys and values that the backbone computes for embeddings `[P, width]`."""
        return self.backbone.read_embeddings(rows)

    def tensors(self, rows: Tensor) -> dict[str, Tensor]:
        """`decoder.embeddings` `[P, width]`."""
        return {"decoder.embeddings": rows}

    def rows(self, tensors: Mapping[str, Tensor], length: int) -> Tensor:
        """`[P, width]` from the tensors of an artifact."""
        expect_shapes(tensors, {"decoder.embeddings": (length, self.width)})
        found = tensors["decoder.embeddings"]
        if not found.is_floating_point() or not found.isfinite().all():
            raise ArtifactError(
                "prompt.safetensors: decoder.embeddings must hold finite floating-point numbers"
            )
        return found

    def real_rows(self, backbone: Backbone, ids: list[int]) -> Tensor:
        """The backbone's own embeddings of a text: `[len(ids), width]`."""
        return backbone.embeddings(ids)
