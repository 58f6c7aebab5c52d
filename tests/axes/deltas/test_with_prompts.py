"""A prompt beside a delta is the same prompt on the backbone as the delta has made it."""

from __future__ import annotations

import pytest
import torch

from axes.deltas.moving import logits, louder, method, texts
from conftest import assert_close
from families.catalogue import wrapped
from foreword.axes.readout.head import SequenceHead
from foreword.backbone import Backbone, Call, Decoding, generate
from foreword.recipe import TrainingSpec
from foreword.training import Pair, train
from foreword.tuned import TunedModel
from foreword.tuned.compose import compose

PROMPTS = {
    "prefix-tuning": {"reparameterization": {"kind": "table"}},
    "prompt-tuning": {},
    "p-tuning": {},
    "p-tuning-v2": {},
}
DELTAS = ("full", "top", "bitfit", "lora")
HOW = Decoding(max_new_tokens=4)


def model_of(backbone: Backbone, prompt: str, delta: str, **more: object) -> TunedModel:
    options = {**PROMPTS[prompt], "length": 3, "delta": {"kind": delta}, **more}
    return compose(backbone, method(prompt, **options))


def on_the_changed_backbone(model: TunedModel, family: str) -> TunedModel:
    """The prompt alone, on a backbone of its own whose weights are those of the delta."""
    other = wrapped(family)
    weights = model.delta.weights()
    with torch.no_grad():
        for name, parameter in other.model.named_parameters():
            parameter.copy_(weights.get(name, parameter))
    injection = type(model.injection).__name__
    name = {"KeysValues": "prefix-tuning", "Embeddings": "prompt-tuning"}[injection]
    alone = compose(other, method(name, **{**PROMPTS[name], "length": 3}))
    return alone.with_rows(model.rows().detach())


@pytest.mark.parametrize("delta", DELTAS)
@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("family", ["gpt2", "bart"])
def test_same_as_on_changed_weights(family: str, prompt: str, delta: str) -> None:
    model = model_of(wrapped(family), prompt, delta).double()
    louder(model.delta)
    expected = on_the_changed_backbone(model, family)
    layouts = [
        m.placement.layout([[3, 4, 5, 6], [7, 8]], [[5, 6, 7], [8, 9]]) for m in (model, expected)
    ]
    with torch.no_grad():
        assert_close(model(layouts[0]), expected(layouts[1]))
        written = [
            generate(
                m.backbone,
                Call(m.placement.layout([[3, 4, 5, 6], [7, 8]], side="left"), m.prompt()),
                HOW,
            )
            for m in (model, expected)
        ]
    assert written[0] == written[1]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_adapters_beside_a_prompt(prompt: str) -> None:
    """At their start they change nothing; both learn, and one by one the rows answer alike."""
    backbone = wrapped("gpt2")
    model = model_of(backbone, prompt, "adapter", length=2).double()
    alone = compose(backbone, method(prompt, **{**PROMPTS[prompt], "length": 2})).double()
    rows = model.rows().detach()
    sources, targets = [[3, 4, 5], [7, 8]], [[5, 6, 7], [8, 9]]
    layout = model.placement.layout(sources, targets)
    with torch.no_grad():
        assert_close(model(layout), alone.with_rows(rows)(layout))
    louder(model.delta)
    loss = model(layout)
    loss.sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.delta.parameters())
    assert all(p.grad is not None for p in model.reparam.parameters())
    one_by_one = [
        model(model.placement.layout([s], [t])) for s, t in zip(sources, targets, strict=True)
    ]
    assert_close(loss.detach(), torch.cat(one_by_one).detach())


@pytest.mark.parametrize("delta", [*DELTAS, "adapter"])
def test_training_moves_both_and_no_weight_of_the_backbone(delta: str) -> None:
    backbone = wrapped("bert", torch.float32)
    before = {name: p.clone() for name, p in backbone.model.named_parameters()}
    options = method("p-tuning-v2", length=3, delta={"kind": delta})
    model = compose(backbone, options, SequenceHead(32, 2, dropout=0.0))
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    pairs = [Pair([5 + i, 6, 7], marks=(0,), labels=(i % 2,)) for i in range(4)]
    spec = TrainingSpec(steps=2, batch_size=4, learning_rate=1e-2, best_by=None)
    train(model, pairs, spec)
    assert not [n for n, tensor in model.state_dict().items() if torch.equal(tensor, start[n])]
    for name, parameter in backbone.model.named_parameters():
        assert torch.equal(parameter, before[name]), name
    assert model.bare().backbone is backbone
    assert model.trained_share > 0


def test_the_share_is_of_the_backbone_without_what_was_put_into_it() -> None:
    backbone = wrapped("gpt2")
    whole = sum(p.numel() for p in backbone.model.parameters())
    model = model_of(backbone, "prefix-tuning", "lora")
    rows, updates = 3 * 3 * 2 * 32, 3 * 4 * (32 + 96)
    assert model.trained_parameters == rows + updates
    assert model.trained_share == (rows + updates) / whole
    with torch.no_grad():
        assert logits(model, texts(backbone, virtual=3)).shape[1] == 512
