"""The layers that make keys and values are found by running a model, or it is refused by name."""

from __future__ import annotations

import pytest
import torch

from conftest import assert_close
from families import catalogue
from foreword.backbone import projections
from foreword.errors import BackboneError

UNROTATED = ("gpt2", "opt", "gpt_bigcode", "bert", "albert", "distilbert", "bart", "t5")
ROTATED = ("llama", "gpt_neox", "phi3", "mistral", "gemma2", "t5gemma")
"""Projections of their own, fused ones in several orders, and layers that share one module."""
IDS = [5, 6, 7, 8]


@pytest.mark.parametrize("family", [*UNROTATED, *ROTATED])
def test_what_a_text_is_read_as_gives_its_keys_and_values(family) -> None:
    backbone = catalogue.wrapped(family)
    sites = tuple(backbone.geometry.sites)
    found = projections.find(backbone, sites)
    read = projections.states(backbone, sites, IDS)
    expected = backbone.keys_values(IDS)
    for site in sites:
        keys, values = expected[site]
        assert len(found[site]) == len(keys) == backbone.geometry.sites[site].layers
        for layer, one in enumerate(found[site]):
            made_keys, made_values = one.of(read[site][layer])
            assert_close(made_values, values[layer])
            if family in UNROTATED or site == "cross":
                assert_close(made_keys, keys[layer])
                continue
            assert not torch.allclose(made_keys[1:], keys[layer][1:])
            if site != "decoder" or backbone.begin is None:  # there a start token stands first
                assert_close(made_keys[0], keys[layer][0])


def test_nothing_is_left_on_the_model() -> None:
    backbone = catalogue.wrapped("gpt2")
    projections.find(backbone, ("decoder",))
    assert all(not module._forward_hooks for module in backbone.model.modules())
    assert all(parameter.grad is None for parameter in backbone.model.parameters())


@pytest.mark.parametrize(
    ("family", "why"),
    [
        ("qwen3", "no linear layer makes the keys of layer 0 of its decoder"),
        ("olmo2", "no linear layer makes the keys of layer 0 of its decoder"),
        ("deepseek_v2", "no linear layer makes the"),
        ("bloom", "cannot be reached, only its cache"),
    ],
)
def test_a_family_without_projections_is_refused_by_name(family, why) -> None:
    backbone = catalogue.wrapped(family)
    with pytest.raises(BackboneError, match=rf"\({family}\).*{why}.*use prefix-tuning"):
        projections.find(backbone, ("decoder",))
