"""Which sites and layers carry a prompt is a choice; an impossible one is refused with a reason."""

import pytest
import torch
from pydantic import ValidationError

from families.measures import LENGTH, SOURCES, TARGETS, backbone_of
from foreword.artifacts.artifact import load_model, save_artifact
from foreword.backbone import Backbone
from foreword.errors import UserError
from foreword.methods import PrefixTuning, PromptTuning
from foreword.methods.axes import MLP, Table
from foreword.recipe import TaskId
from foreword.tuned import TunedModel
from foreword.tuned.compose import compose


def prefix(backbone: Backbone, **options) -> TunedModel:
    chosen = {"reparameterization": Table(std=0.5), **options}
    return compose(backbone, PrefixTuning(name="prefix-tuning", length=LENGTH, **chosen))


def prompt(backbone: Backbone, **options) -> TunedModel:
    return compose(backbone, PromptTuning(name="prompt-tuning", length=LENGTH, **options))


@pytest.mark.parametrize(
    ("options", "layers"),
    [
        ({}, {"encoder": (0, 1), "decoder": (0, 1, 2), "cross": (0, 1, 2)}),
        ({"sites": ("cross",)}, {"cross": (0, 1, 2)}),
        ({"layers": (0, -1)}, {"encoder": (0, 1), "decoder": (0, 2), "cross": (0, 2)}),
        (
            {"layers": {"decoder": (-1,)}},
            {"encoder": (0, 1), "decoder": (2,), "cross": (0, 1, 2)},
        ),
        ({"sites": ("decoder",), "layers": {"decoder": (2, 0)}}, {"decoder": (0, 2)}),
    ],
    ids=str,
)
def test_what_is_chosen_is_trained_and_nothing_else(options, layers) -> None:
    backbone = backbone_of("bart")
    model = prefix(backbone, **options)
    shapes = backbone.geometry.sites
    widths = {
        site: sum(shapes[site].heads[layer].width for layer in one) for site, one in layers.items()
    }
    assert model.trained_parameters == LENGTH * sum(widths.values())
    found = model.prompt()
    assert found is not None
    assert {site: one.layers for site, one in found.sites.items()} == layers
    assert model.injection.sites == tuple(layers)


def test_every_site_has_an_mlp_of_its_own() -> None:
    model = prefix(backbone_of("t5"), reparameterization=MLP(hidden=8))
    heads = {name.split(".")[2] for name, _ in model.named_parameters()}
    sites = ("encoder", "decoder", "cross")
    assert heads == {f"{site}/keys_values" for site in sites}


def test_embeddings_stand_in_the_encoder_unless_told() -> None:
    backbone = backbone_of("t5")
    width = backbone.geometry.width
    for sites, count in ((None, 1), (("decoder",), 1), (("encoder", "decoder"), 2)):
        model = prompt(backbone, sites=sites)
        assert model.trained_parameters == LENGTH * width * count
        layout = model.arrange(SOURCES[:1], TARGETS[:1])
        virtual = backbone.geometry.vocabulary <= layout.input_ids
        assert virtual.sum() == (LENGTH if sites and "decoder" in sites else 0)
        assert layout.source is not None
        virtual = backbone.geometry.vocabulary <= layout.source.input_ids
        assert virtual.sum() == (0 if sites == ("decoder",) else LENGTH)


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        ("gpt2", {"sites": ("encoder",)}, r"method\.sites: .*\(gpt2\) has no 'encoder'"),
        (
            "t5",
            {"layers": (3,)},
            r"method\.layers: \[3\] must name at least one layer of the encoder",
        ),
        ("gpt2", {"layers": (0, -4)}, r"from 0 to 2 or from -3 to -1"),
        ("gpt2", {"layers": (0, -3)}, r"method\.layers: \[0, -3\] must name at least one layer"),
        ("gpt2", {"layers": ()}, r"method\.layers: .*at least one"),
        ("t5", {"layers": {"cross": ()}}, r"method\.layers: .*at least one"),
        (
            "t5",
            {"sites": ("encoder",), "layers": {"cross": (0,)}},
            r"method\.layers: 'cross' is none of the sites encoder",
        ),
        ("bloom", {"layers": (0,)}, r"method\.layers: .*through its cache alone, at all layers"),
        ("t5", {"positions": "shift"}, r"method\.positions: 'shift' is not possible .* 'keep' is"),
        ("bloom", {"positions": "keep"}, r"method\.positions: 'keep' is not possible .*'shift' is"),
        ("bert", {}, r"\(bert\) is an encoder, which writes no"),
    ],
)
def test_an_impossible_prefix_is_refused(family, options, message) -> None:
    with pytest.raises(UserError, match=message):
        prefix(backbone_of(family), **options)


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        ("t5", {"sites": ("cross",)}, r"method\.sites: 'cross' has no input of its own"),
        ("gpt2", {"sites": ("encoder",)}, r"method\.sites: .*has no 'encoder'"),
        ("gpt2", {"positions": "keep"}, r"method\.positions: 'keep' is not possible"),
        ("bart", {"positions": "keep"}, r"method\.positions: 'keep' is not possible"),
    ],
)
def test_impossible_embeddings_are_refused(family, options, message) -> None:
    with pytest.raises(UserError, match=message):
        prompt(backbone_of(family), **options)


@pytest.mark.parametrize("sites", [(), ("cross", "cross")])
def test_a_site_is_named_once(sites) -> None:
    with pytest.raises(ValidationError, match="name each site at most once, and at least one"):
        PrefixTuning(name="prefix-tuning", sites=sites)


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("bart", {}),
        ("bart", {"sites": ("cross", "encoder"), "layers": {"cross": (0, 2)}}),
        ("gemma4_text", {}),
        ("gemma4_text", {"layers": (0, 1, 4)}),
        ("gemma4_text", {"layers": (1, 3)}),
    ],
    ids=str,
)
def test_sites_and_layers_come_back_from_an_artifact(tmp_path, family, options) -> None:
    backbone = backbone_of(family)
    model = prefix(backbone, **options)
    method = PrefixTuning(name="prefix-tuning", length=LENGTH, **options)
    save_artifact(
        tmp_path / "a",
        model,
        name="a",
        method=method,
        task=TaskId(input="{x}", target="{reference}"),
    )
    manifest, loaded = load_model(tmp_path / "a", backbone=backbone)
    assert manifest.axes["sites"] == list(model.injection.sites)
    with torch.no_grad():
        assert torch.equal(loaded.rows(), model.rows())


def test_room_is_what_the_columns_leave() -> None:
    """BART's encoder and decoder have 64 positions each."""
    backbone = backbone_of("bart")
    deep = prefix(backbone)
    assert (deep.room(64 - 1), deep.placement.answer_room(64)) == (64, 63)
    for sites, read, written in (
        (("encoder",), 60, 63),
        (("decoder",), 64, 59),
        (("encoder", "decoder"), 60, 59),
    ):
        shallow = prompt(backbone, sites=sites)
        assert (shallow.room(9), shallow.placement.answer_room(64)) == (read, written)
        source = (SOURCES[0] * 5)[:read]
        with torch.no_grad():
            assert shallow(shallow.arrange([source], [source[:written]])).isfinite().all()
