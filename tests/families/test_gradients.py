"""Every trained number of every method gets a gradient; layers computed again give the same."""

from typing import Any

import pytest
from torch import Tensor

from families.catalogue import FAMILIES
from families.measures import LENGTH, SOURCES, TARGETS, backbone_of, gradient
from foreword.axes.injection import Embeddings, KeysValues
from foreword.axes.readout import Generation, SequenceHead
from foreword.backbone import Call
from foreword.errors import BackboneError
from foreword.methods import MethodOptions, PrefixTuning, PromptTuning, PTuning
from foreword.methods.axes import LSTM, MLP, ReluMLP, Table
from foreword.tuned import TunedModel
from foreword.tuned.compose import compose

PREFIX: dict[str, Any] = {"name": "prefix-tuning", "length": LENGTH}
METHODS: dict[str, MethodOptions] = {
    "prefix-table": PrefixTuning(**PREFIX, reparameterization=Table(std=0.5)),
    "prefix-mlp": PrefixTuning(**PREFIX, reparameterization=MLP(hidden=8)),
    "prompt-tuning": PromptTuning(name="prompt-tuning", length=LENGTH),
    "p-tuning-lstm": PTuning(name="p-tuning", length=LENGTH, reparameterization=LSTM(hidden=6)),
    "p-tuning-mlp": PTuning(name="p-tuning", length=LENGTH, reparameterization=ReluMLP()),
}


def composed(family: str, options: MethodOptions) -> TunedModel:
    """A method on a family, through the same door as every run."""
    backbone = backbone_of(family)
    encodes = backbone.geometry.kind == "encoder"
    readout = SequenceHead(backbone.hidden_width, 2) if encodes else Generation()
    return compose(backbone, options, readout).double()


def loss_of(model: TunedModel) -> Tensor:
    """Of targets where a model writes, of all logits where it reads."""
    if model.backbone.geometry.kind == "encoder":
        layout = model.arrange(SOURCES)
        return model.backbone.logits(Call(layout, model.prompt())).log_softmax(-1).square().mean()
    return model(model.arrange(SOURCES, TARGETS)).sum()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_trained_number_gets_a_gradient(family, method) -> None:
    """No dead halves: of a table every number, of a network every parameter."""
    model = composed(family, METHODS[method])
    loss_of(model).backward()
    for name, parameter in model.reparam.named_parameters():
        assert parameter.grad is not None, name
        moved = (parameter.grad != 0).double().mean().item()
        assert moved > 0.3 if method.startswith("p-tuning") else moved == 1.0, (name, moved)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "albert"])
def test_computed_again_they_are_the_same(family) -> None:
    backbone = backbone_of(family)
    for injection in (KeysValues(backbone.geometry), Embeddings(backbone)):
        kept = gradient(family, injection, again=False)
        again = gradient(family, injection, again=True)
        assert kept.abs().max() > 1e-5
        assert (kept - again).abs().max() <= 1e-12


def test_one_module_for_all_layers_is_not_computed_again() -> None:
    injection = KeysValues(backbone_of("albert").geometry)
    with pytest.raises(BackboneError, match="'albert' cannot do it: one module stands for"):
        gradient("albert", injection, again=True)
