"""What an activation gives is computed again for the backward pass, to the same bits."""

import gc
import weakref
from collections import Counter

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import save_on_cpu

from conftest import mini_tokens, tiny_model
from families import measures
from families.catalogue import DECODERS, ENCODER_DECODERS, ENCODERS
from families.measures import backbone_of
from foreword.axes.injection import KeysValues
from foreword.backbone import Backbone, Call, without
from foreword.backbone.layout import Layout
from foreword.backbone.memory import Alive
from foreword.backbone.modules import outputs

NONE = {
    "bart",
    "blenderbot",
    "blenderbot-small",
    "bloom",
    "camembert",
    "codegen",
    "data2vec-text",
    "distilbert",
    "falcon",
    "gpt2",
    "gpt_bigcode",
    "gpt_neox",
    "gpt_oss",
    "gptj",
    "m2m_100",
    "marian",
    "mbart",
    "nllb-moe",
    "opt",
    "pegasus",
    "phi",
    "plbart",
    "roberta",
    "starcoder2",
    "switch_transformers",
    "t5",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
}
"""Families without a gated MLP, or whose gate is a function and no module."""


def gradients(backbone: Backbone, call: Call, rows: Tensor) -> Tensor:
    states = backbone.output(call)[0]
    return torch.autograd.grad(states.double().pow(3).mean(), rows)[0]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often an output is computed again."""
    count: Counter[str] = Counter()
    computed = outputs._Again.tensor_now

    def run(again: outputs._Again) -> Tensor:
        count["again"] += 1
        return computed(again)

    monkeypatch.setattr(outputs._Again, "tensor_now", run)
    return count


@pytest.mark.parametrize("family", [*DECODERS, *ENCODERS, *ENCODER_DECODERS])
def test_gradients_are_the_same_bits(family: str, counted: Counter[str]) -> None:
    backbone = backbone_of(family)
    kv = KeysValues(backbone.geometry)
    rule = measures.rules(backbone, kv)[0]
    layout = measures.laid_out(backbone, kv, rule, (0, 1, 2), "right")
    rows = measures.random_rows(kv).requires_grad_()
    with without(backbone.model, ["outputs"]):
        expected = gradients(backbone, Call(layout, kv.prompt_of(rows)), rows)
    assert not counted["again"]
    own = gradients(backbone, Call(layout, kv.prompt_of(rows)), rows)
    assert measures.largest(expected) > 0
    assert torch.equal(own, expected)
    assert bool(counted["again"]) is (family not in NONE)


def test_nothing_is_held_when_a_forward_pass_is_dropped() -> None:
    backbone = backbone_of("llama")
    kv = KeysValues(backbone.geometry)
    rows = measures.random_rows(kv).requires_grad_()
    layout = measures.laid_out(backbone, kv, "shift", (0, 1, 2), "right")
    with Alive([rows, *backbone.model.state_dict().values()]) as alive:
        backbone.output(Call(layout, kv.prompt_of(rows)))
        gc.collect()
        first = alive.now
        backbone.output(Call(layout, kv.prompt_of(rows)))
        gc.collect()
    assert alive.now <= first


def test_hooks_of_somebody_else_go_before(counted: Counter[str]) -> None:
    backbone = backbone_of("llama")
    kv = KeysValues(backbone.geometry)
    rows = measures.random_rows(kv).requires_grad_()
    layout = measures.laid_out(backbone, kv, "shift", (0, 1, 2), "right")
    expected = gradients(backbone, Call(layout, kv.prompt_of(rows)), rows)
    before = counted["again"]
    with save_on_cpu():
        own = gradients(backbone, Call(layout, kv.prompt_of(rows)), rows)
    assert counted["again"] == before > 0
    assert torch.equal(own, expected)


def test_an_output_that_is_changed_in_place_is_kept(counted: Counter[str]) -> None:
    """As a hook of a user may do."""
    backbone = backbone_of("llama")
    kv = KeysValues(backbone.geometry)
    rows = measures.random_rows(kv).requires_grad_()
    layout = measures.laid_out(backbone, kv, "shift", (0, 1, 2), "right")
    gate = backbone.model.model.layers[0].mlp.act_fn
    hook = gate.register_forward_hook(lambda _, __, output: output.mul_(0.5))
    try:
        with without(backbone.model, ["outputs"]):
            expected = gradients(backbone, Call(layout, kv.prompt_of(rows)), rows)
        own = gradients(backbone, Call(layout, kv.prompt_of(rows)), rows)
    finally:
        hook.remove()
        outputs._modules.pop(backbone.model)
    assert torch.equal(own, expected)
    assert counted["again"] == len(backbone.model.model.layers) - 1


def test_a_weight_that_is_changed_before_the_backward_pass_is_an_error() -> None:
    backbone = Backbone.wrap(tiny_model("llama").double(), mini_tokens())
    kv = KeysValues(backbone.geometry)
    rows = measures.random_rows(kv).requires_grad_()
    loss = backbone.output(Call(Layout.of([[3, 4, 5]]), kv.prompt_of(rows)))[0].sum()
    with torch.no_grad():
        backbone.model.model.layers[0].mlp.down_proj.weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_functional_gradients_are_left_alone(counted: Counter[str]) -> None:
    """They allow nobody to pack what is kept."""
    backbone = backbone_of("llama")
    kv = KeysValues(backbone.geometry)
    layout = measures.laid_out(backbone, kv, "shift", (0, 1, 2), "right")

    def loss(rows: Tensor) -> Tensor:
        return backbone.output(Call(layout, kv.prompt_of(rows)))[0].double().pow(3).mean()

    rows = measures.random_rows(kv).requires_grad_()
    expected = gradients(backbone, Call(layout, kv.prompt_of(rows)), rows)
    counted.clear()
    own = torch.func.grad(loss)(rows.detach())
    torch.testing.assert_close(own, expected, rtol=1e-9, atol=1e-12)
    assert not counted["again"]


def test_a_model_that_was_run_goes_when_nobody_has_it() -> None:
    model = tiny_model("llama")
    backbone = Backbone.wrap(model, mini_tokens())
    rows = torch.randn(2, KeysValues(backbone.geometry).width, requires_grad=True)
    prompt = KeysValues(backbone.geometry).prompt_of(rows)
    backbone.output(Call(Layout.of([[3, 4, 5]]), prompt))
    seen = weakref.ref(model)
    del model, backbone, prompt
    gc.collect()
    assert seen() is None
