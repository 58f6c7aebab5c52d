"""Weights that are laid out a second time give the same numbers, and gradients come as before."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import make_backbone
from foreword.backbone import Backbone, Call, packed, packed_bytes
from foreword.backbone.decoding import packing
from foreword.backbone.layout import Layout

pytestmark = pytest.mark.skipif(not packing.possible(), reason="this torch has no such products")


@pytest.fixture(params=["gpt2", "llama"])
def backbone(request: Any, monkeypatch: pytest.MonkeyPatch) -> Backbone:
    monkeypatch.setattr(packing, "SMALLEST", 1)
    return make_backbone(request.param)


def logits(backbone: Backbone, rows: list[list[int]]) -> Tensor:
    with torch.no_grad():
        return backbone.logits(Call(Layout.of(rows, side="left")))


@pytest.mark.parametrize(
    "rows", [[[5]], [[5, 7, 11]], [[5, 7, 11, 3], [2, 9]] * 4, [[5, 7, 11]] * 7]
)
def test_logits_are_those_of_the_weights(backbone: Backbone, rows: list[list[int]]) -> None:
    twice = packed(backbone)
    expected = logits(backbone, rows)
    tolerance = 1e-5 * max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(logits(twice, rows), expected, atol=tolerance, rtol=0)
    assert any("forward" in vars(module) for module in twice.model.modules())
    assert not any("forward" in vars(module) for module in backbone.model.modules())


def test_it_is_the_second_layout_that_serves(backbone: Backbone) -> None:
    """Where the weights themselves become others, the layout stays what it was."""
    twice = packed(backbone)
    expected = logits(twice, [[5, 7, 11]])
    chosen = [module for module in backbone.model.modules() if type(module) in packing.LINEAR]
    kept = [module.weight.clone() for module in chosen]
    shared = {backbone.model.get_input_embeddings().weight.data_ptr()}
    for module in chosen:
        if module.weight.data_ptr() not in shared:
            module.weight.data.zero_()
    assert torch.equal(logits(twice, [[5, 7, 11]]), expected)
    assert not torch.equal(logits(backbone, [[5, 7, 11]]), expected)
    for module, weight in zip(chosen, kept, strict=True):
        module.weight.data.copy_(weight)


def test_products_have_few_sizes() -> None:
    """Memory of a server that has seen every number of rows stays what it is."""
    sizes = {rows: packing.rows_of_a_product(rows) for rows in range(2, 2049)}
    assert all(rows <= size <= rows * 9 / 8 for rows, size in sizes.items())
    assert all(sizes[rows] == rows for rows in range(2, 17))
    assert len(set(sizes.values())) == 15 + 8 * 7


def test_gradients_come_from_the_weights(backbone: Backbone) -> None:
    rows = torch.randn(3, backbone.geometry.width, generator=torch.Generator().manual_seed(0))
    found = []
    for one in (backbone, packed(backbone)):
        own = rows.clone().requires_grad_()
        keys = one.read_embeddings(own).keys
        found.append(torch.autograd.grad(keys.square().sum(), own)[0])
    assert torch.equal(*found)


def test_other_types_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "SMALLEST", 1)
    assert packed_bytes(make_backbone("gpt2", torch.float64)) == 0
    own = make_backbone("gpt2")
    head = own.model.get_output_embeddings().weight
    assert packed_bytes(own) > head.nbytes
