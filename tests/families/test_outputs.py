"""What an activation gives is computed again for the backward pass, to the same bits."""

import gc
from collections import Counter

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import save_on_cpu

from families import measures
from families.catalogue import DECODERS, ENCODER_DECODERS, ENCODERS
from families.measures import backbone_of
from foreword.axes.injection import KeysValues
from foreword.backbone import Backbone, Call, without
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
    computed = outputs._Again.computed

    def run(again: outputs._Again) -> Tensor:
        count["again"] += 1
        return computed(again)

    monkeypatch.setattr(outputs._Again, "computed", run)
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
