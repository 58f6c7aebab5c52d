"""Every family's logits with a prompt: those of transformers' own model with it put in by hand."""

from collections.abc import Iterator, Mapping, Sequence

import pytest
import torch

from conftest import row_logits
from families import by_hand, measures
from families.catalogue import DECODERS, ENCODER_DECODERS, ENCODERS, FAMILIES, POSITIONS
from families.measures import LENGTH, SOURCES, TOLERANCE, backbone_of, gap_to_reference
from foreword.axes.injection import Embeddings, KeysValues
from foreword.axes.placement import Prefix
from foreword.backbone import Call
from foreword.common.sites import Site
from foreword.errors import UserError
from foreword.methods import PrefixTuning
from foreword.tuned.compose import compose


@pytest.fixture(autouse=True)
def _exactly() -> Iterator[None]:
    with by_hand.ExactFloat64():
        yield


@pytest.mark.parametrize("method", ["prefix-tuning", "prompt-tuning"])
@pytest.mark.parametrize("family", FAMILIES)
def test_in_padded_batches_and_alone(family, method) -> None:
    """All sites at once, by the rule for positions that is chosen where none is asked for."""
    injection = measures.injection_of(backbone_of(family), method)
    assert gap_to_reference(family, injection) < TOLERANCE


@pytest.mark.parametrize("family", [*DECODERS, *ENCODERS])
def test_by_the_other_rule_for_positions(family) -> None:
    backbone = backbone_of(family)
    for method in ("prefix-tuning", "prompt-tuning"):
        injection = measures.injection_of(backbone, method)
        for rule in measures.rules(backbone, injection)[1:]:
            gap = gap_to_reference(family, injection, rule=rule, batches=[(0, 1)])
            assert gap < TOLERANCE


SOME_LAYERS: list[Mapping[Site, Sequence[int]]] = [
    {"encoder": (0, 1)},
    {"decoder": (0, 1, 2)},
    {"cross": (0, 1, 2)},
    {"cross": (1,), "encoder": (1,)},
    {"encoder": (0,), "decoder": (0, 2), "cross": (2,)},
]


@pytest.mark.parametrize("layers", SOME_LAYERS, ids=str)
@pytest.mark.parametrize("family", ["bart", "t5", "umt5"])
def test_chosen_layers_of_chosen_sites(family, layers) -> None:
    injection = KeysValues(backbone_of(family).geometry, layers)
    assert gap_to_reference(family, injection) < TOLERANCE


@pytest.mark.parametrize("family", ["albert", "bert", "modernbert", "gpt2", "qwen3", "mistral"])
def test_chosen_layers_of_one_site(family) -> None:
    """One module is all of ALBERT's layers, and every second of ModernBERT's sees a window."""
    g = backbone_of(family).geometry
    (site,) = g.sites
    for layers in ((0,), (g.main.layers - 1,)):
        injection = KeysValues(g, {site: layers})
        assert gap_to_reference(family, injection, batches=[(0, 1)]) < TOLERANCE


@pytest.mark.parametrize("family", ENCODER_DECODERS)
def test_an_answers_positions_after_the_decoders_prefix(family) -> None:
    """As PEFT has them; only where the decoder alone carries a prefix, in its cache."""
    g = backbone_of(family).geometry
    if not backbone_of(family).caches_a_prefix:
        shifted = PrefixTuning(name="prefix-tuning", sites=("decoder",), positions="shift")
        with pytest.raises(UserError, match=r"method\.positions: 'shift' is not possible"):
            compose(backbone_of(family), shifted)
        return
    injection = KeysValues(g, {"decoder": range(g.sites["decoder"].layers)})
    gaps = {
        rule: gap_to_reference(family, injection, rule=rule, batches=[(0, 1, 2)])
        for rule in ("shift", "keep")
    }
    assert max(gaps.values()) < TOLERANCE


@pytest.mark.parametrize("sites", [("decoder",), ("encoder", "decoder")], ids="-".join)
@pytest.mark.parametrize("family", ENCODER_DECODERS)
def test_embeddings_in_the_decoders_input(family, sites) -> None:
    injection = Embeddings(backbone_of(family), sites)
    assert gap_to_reference(family, injection, batches=[(0, 1, 2)]) < TOLERANCE


@pytest.mark.parametrize("family", ["albert", "bert", "roberta", "distilbert", "modernbert"])
def test_states_without_a_head(family) -> None:
    """What a classification head reads."""
    backbone = backbone_of(family)
    injection = KeysValues(backbone.geometry)
    rows = measures.random_rows(injection)
    layout = measures.laid_out(backbone, injection, "keep", (0, 1, 2), "right")
    with torch.no_grad():
        found = backbone.hidden(Call(layout, injection.prompt_of(rows)))
    plain = measures.plain_of(family).base_model
    for row, ids in enumerate(SOURCES):
        expected = by_hand.prefix_logits(plain, measures.by_layer(injection, rows), ids)
        assert (row_logits(found, layout, row) - expected).abs().max() < TOLERANCE


@pytest.mark.parametrize("method", ["prefix-tuning", "prompt-tuning"])
@pytest.mark.parametrize("family", ENCODERS)
def test_all_position_slots_are_kept(family, method) -> None:
    """Under "keep": a model with 64 positions reads 64 real tokens beside a prompt."""
    backbone = backbone_of(family)
    injection = measures.injection_of(backbone, method)
    g = backbone.geometry
    assert g.context == POSITIONS
    placement = Prefix(LENGTH, "keep", injection.columns(LENGTH), None, g.first_position)
    assert placement.room(g.context) == POSITIONS
    ids = (SOURCES[0] * 5)[:POSITIONS]
    with torch.no_grad():
        prompt = injection.prompt_of(measures.random_rows(injection))
        logits = backbone.logits(Call(placement.layout([ids, ids[:9]]), prompt))
        alone = backbone.logits(Call(placement.layout([ids]), prompt))
    assert (logits[0] - alone[0]).abs().max() < TOLERANCE
    assert (logits[0, -1] - logits[0, -2]).abs().max() > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_every_site_moves_the_logits(family) -> None:
    """So that the tests above can fail."""
    backbone = backbone_of(family)
    g = backbone.geometry
    for site, shape in g.sites.items():
        injection = KeysValues(g, {site: range(shape.layers)})
        layout = measures.laid_out(backbone, injection, "keep", (0,), "right")
        with torch.no_grad():
            prompt = injection.prompt_of(measures.random_rows(injection))
            moved = backbone.logits(Call(layout, prompt)) - backbone.logits(Call(layout))
        assert moved.abs().max() > 1e-3


@pytest.mark.parametrize("family", ["albert", "bert", "modernbert", "gpt2", "qwen3", "bart", "t5"])
def test_real_words_to_start_from(family) -> None:
    """The model's own keys and values for them, at every site and layer. A decoder reads them after
    its start."""
    backbone, plain = backbone_of(family), measures.plain_of(family)
    injection, ids = KeysValues(backbone.geometry), SOURCES[1]
    found = measures.by_layer(injection, injection.matrix(injection.real(backbone, ids)))
    decoder_ids = None if backbone.begin is None else [*backbone.begin, *ids]
    expected = by_hand.keys_values(plain, ids, decoder_ids=decoder_ids)
    assert len(found) == len(expected) == len(backbone.geometry.sites)
    for layers, sides in zip(found.values(), expected.values(), strict=True):
        for layer, (keys, values) in layers.items():
            own_keys, own_values = sides[layer]
            assert (keys - own_keys[-len(ids) :]).abs().max() < TOLERANCE
            assert (values - own_values[-len(ids) :]).abs().max() < TOLERANCE
