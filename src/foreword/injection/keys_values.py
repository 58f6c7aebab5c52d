"""Virtual tokens as keys and values of every layer (Li & Liang 2021, section 4.1)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from foreword.backbone import Backbone, Geometry, PromptKeyValues
from foreword.errors import ArtifactError
from foreword.injection.base import Injection, expect_shapes


class KeysValues(Injection):
    """Keys and values at the decoder's self-attention.

    A virtual token is a row of `2 · layers · kv_heads · head_dim` numbers in PEFT's order: seen as
    `[2 · layers, kv_heads, head_dim]`, index 2i holds the keys of layer i and 2i+1 its values.
    """

    def __init__(self, geometry: Geometry) -> None:
        self.geometry = geometry
        self.width = 2 * geometry.layers * geometry.kv_heads * geometry.head_dim

    def prompt(self, rows: Tensor) -> PromptKeyValues:
        """Keys and values, two `[layers, P, kv_heads, head_dim]`, from `[P, width]`."""
        g = self.geometry
        sides = rows.view(-1, g.layers, 2, g.kv_heads, g.head_dim).permute(2, 1, 0, 3, 4)
        return PromptKeyValues(sides[0], sides[1])

    def tensors(self, rows: Tensor) -> dict[str, Tensor]:
        """`decoder.keys`, `decoder.values` `[layers, P, kv_heads, head_dim]`, and their layers."""
        prompt = self.prompt(rows)
        return {
            "decoder.keys": prompt.keys.contiguous(),
            "decoder.values": prompt.values.contiguous(),
            "decoder.layers": torch.arange(self.geometry.layers),
        }

    def rows(self, tensors: Mapping[str, Tensor], length: int) -> Tensor:
        """`[P, width]` from the tensors of an artifact."""
        g = self.geometry
        shape = (g.layers, length, g.kv_heads, g.head_dim)
        expected = {"decoder.keys": shape, "decoder.values": shape, "decoder.layers": (g.layers,)}
        expect_shapes(tensors, expected)
        if tensors["decoder.layers"].tolist() != list(range(g.layers)):
            raise ArtifactError(
                f"prompt.safetensors: decoder.layers is {tensors['decoder.layers'].tolist()}, "
                f"expected 0 to {g.layers - 1}"
            )
        sides = [tensors["decoder.keys"], tensors["decoder.values"]]
        for name, side in zip(("decoder.keys", "decoder.values"), sides, strict=True):
            if not side.is_floating_point() or not side.isfinite().all():
                raise ArtifactError(
                    f"prompt.safetensors: {name} must hold finite floating-point numbers"
                )
        return torch.stack(sides).permute(2, 1, 0, 3, 4).reshape(length, self.width)

    def real_rows(self, backbone: Backbone, ids: list[int]) -> Tensor:
        """The backbone's own keys and values for a text: the paper's "real words" start (7.4)."""
        keys, values = backbone.keys_values(ids)
        return torch.stack([keys, values]).permute(2, 1, 0, 3, 4).reshape(len(ids), self.width)
