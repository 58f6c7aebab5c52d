"""The last layer at the positions that are read gives what it gives at all of them."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import mini_tokens, tiny_model
from families import by_hand, measures
from families.catalogue import DECODERS, ENCODERS
from families.measures import TOLERANCE, backbone_of
from foreword.axes.injection import KeysValues
from foreword.backbone import Backbone, Call, without
from foreword.backbone.layout import Layout
from foreword.backbone.modules import last_layer
from foreword.backbone.modules.forwards import Shared

WHOLE = {
    "albert",
    "bloom",
    "codegen",
    "falcon",
    "gemma3n_text",
    "gptj",
    "longcat_flash",
    "stablelm",
}
"""Families whose last layer is computed as a whole: their attention is their own, or one module
stands for several layers, or a layer has four states a token (Gemma 3n)."""


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
    last_layer._here.twice = False
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
    assert last_layer._here.twice is (family not in WHOLE)


@pytest.mark.parametrize("prefix", ["model", "inside"])
def test_nothing_is_read_and_a_body_that_its_model_does_not_know(
    prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With another prefix `base_model` is the model itself, head and all, which has no states."""
    model = tiny_model("llama")
    monkeypatch.setattr(model, "base_model_prefix", prefix)
    backbone = Backbone.wrap(model, mini_tokens())
    call = Call(Layout.of([[5, 6, 7, 8], [9, 10]]))
    at = torch.tensor([7, 2])
    with torch.no_grad():
        assert backbone.logits(call, at[:0]).shape[0] == 0
        own = backbone.logits(call, at)
        with without(model, ["last_layer"]):
            expected = backbone.logits(call, at)
    torch.testing.assert_close(own, expected)


def test_kinds_of_forwards_come_and_go_in_any_order() -> None:
    """As threads do that recompute layers and read at some positions of one model."""
    model = tiny_model("llama")
    layer = model.model.layers[-1]
    first, second = (Shared() for _ in range(2))
    called: list[str] = []

    def kind(name: str) -> Any:
        def wrap(_: Any, forward: Any) -> Any:
            def run(*args: Any, **kwargs: Any) -> Any:
                called.append(name)
                return forward(*args, **kwargs)

            return run

        return wrap

    outer, inner = (
        first.on([layer], kind("first")),
        second.on([layer], kind("second")),
    )
    ids = torch.tensor([[1, 2, 3]])
    outer.__enter__()
    inner.__enter__()
    model(ids)
    assert called == ["second", "first"]
    outer.__exit__(None, None, None)
    model(ids)
    assert called == ["second", "first", "second"]
    inner.__exit__(None, None, None)
    model(ids)
    assert called == ["second", "first", "second"]
    assert "forward" not in vars(layer)
