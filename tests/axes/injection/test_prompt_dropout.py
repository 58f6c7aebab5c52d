"""Dropout on a prompt's keys and values: drawn for each row, in training steps alone."""

import pytest
import torch

from conftest import assert_close, make_backbone, random_ids
from foreword.backbone.layout import Pair
from foreword.methods import METHODS, PrefixTuning
from foreword.methods.axes import Table
from foreword.tuned import TunedModel
from foreword.tuned.compose import compose

FAMILIES = ["gpt2", "llama", "bloom"]  # through the attention function twice, and a cache


def dropping(family: str, dropout: float) -> TunedModel:
    torch.manual_seed(0)
    method = PrefixTuning(
        name="prefix-tuning", length=4, dropout=dropout, reparameterization=Table(std=1.0)
    )
    return compose(make_backbone(family, torch.float64), method).double()


@pytest.mark.parametrize("family", FAMILIES)
def test_each_row_has_its_own(family: str) -> None:
    model = dropping(family, 0.5).train()
    source, target = random_ids([6, 4])
    layout = model.lay_out([Pair(source, target)] * 3)
    nll = model(layout).detach().view(3, -1).sum(1)
    assert len({round(float(row), 9) for row in nll}) == 3
    torch.manual_seed(1)
    first = model(layout)
    torch.manual_seed(1)
    assert torch.equal(first, model(layout))


@pytest.mark.parametrize("family", FAMILIES)
def test_what_has_no_gradient_has_none(family: str) -> None:
    dropped, plain = dropping(family, 0.5).train(), dropping(family, 0.0)
    layout = plain.lay_out([Pair(*random_ids([6, 4]))] * 2)
    with torch.no_grad():
        expected = plain(layout)
        assert_close(dropped(layout), expected)
    assert_close(dropped.fold()(layout).detach(), expected)


def test_kept_numbers_are_scaled() -> None:
    model = dropping("gpt2", 0.25)
    tokens = model.prompt().sites["decoder"]
    keys, _ = tokens.front(0).of_rows(500, torch.float64)
    own = tokens.keys[0].transpose(0, 1)
    kept = keys != 0
    assert 0.72 < kept.double().mean() < 0.78
    assert_close(keys[kept], (own / 0.75).expand_as(keys)[kept])


@pytest.mark.parametrize("name", ["prefix-tuning", "infix-tuning", "p-tuning-v2"])
def test_methods_that_have_it(name: str) -> None:
    assert METHODS[name](name=name).dropout == 0.0
    assert METHODS[name](name=name, dropout=0.1).dropout == 0.1
