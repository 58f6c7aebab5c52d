"""The last layer at the positions that are read gives what it gives at all of them."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from families import by_hand, measures
from families.catalogue import DECODERS, ENCODERS
from families.measures import TOLERANCE, backbone_of
from foreword.axes.injection import KeysValues
from foreword.backbone import Backbone, Call, without
from foreword.backbone.modules import last_layer

WHOLE = {"albert", "bloom", "codegen", "falcon", "gptj", "longcat_flash", "stablelm"}
"""Families whose last layer is computed as a whole: their attention is their own, or one module
stands for several layers."""


@pytest.fixture(autouse=True)
def _whatever_it_saves(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(last_layer, "WORTH", 1.0)
    with by_hand.ExactFloat64():
        yield


def states_and_gradient(
    backbone: Backbone, call: Call, at: Tensor, rows: Tensor
) -> tuple[Tensor, Tensor]:
    states = backbone.hidden(call, at)
    return states.detach(), torch.autograd.grad(states.pow(3).mean(), rows)[0]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", [*DECODERS, *ENCODERS])
def test_states_and_gradients(family: str, side: str) -> None:
    backbone = backbone_of(family)
    kv = KeysValues(backbone.geometry)
    rule = measures.rules(backbone, kv)[0]
    layout = measures.laid_out(backbone, kv, rule, (0, 1, 2), side)
    rows = measures.random_rows(kv).requires_grad_()
    real = layout.attention_mask.flatten().nonzero().squeeze(1)
    at = real[[0, 2, len(real) - 1]]
    with without(backbone.model, ["last_layer"]):
        expected = states_and_gradient(backbone, Call(layout, kv.prompt_of(rows)), at, rows)
    own = states_and_gradient(backbone, Call(layout, kv.prompt_of(rows)), at, rows)
    assert measures.largest(own[0] - expected[0]) < TOLERANCE
    assert measures.largest(expected[1]) > 1e-6
    torch.testing.assert_close(own[1], expected[1], rtol=1e-9, atol=1e-12)
    assert (last_layer._layers[backbone.model] is None) is (family in WHOLE)
