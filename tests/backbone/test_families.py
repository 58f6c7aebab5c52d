"""Families with a prompt, in float32 as they are loaded. They are those of
tests/families/catalogue.py, where float64 tells more."""

from dataclasses import dataclass, replace

import pytest
import torch
from transformers import PreTrainedModel

from conftest import assert_close, make_backbone, mini_tokens, row_logits, tiny_model
from families import by_hand, measures
from families.catalogue import DECODERS, FAMILIES, plain_model
from families.measures import backbone_of, plain_of
from foreword.axes.injection import Embeddings, KeysValues
from foreword.backbone import Backbone, Call, Heads, SiteGeometry, Tokens, load_backbone
from foreword.backbone.layout import Layout
from foreword.errors import BackboneError

THROUGH_THE_CACHE = {
    family: DECODERS[family] for family in ("bloom", "codegen", "falcon", "gptj", "stablelm")
}
ACCEPTED = {
    family: config for family, config in DECODERS.items() if family not in THROUGH_THE_CACHE
}


@pytest.mark.parametrize("family", FAMILIES)
def test_in_float32(family) -> None:
    """mT5's states are in the tens here, and its logits lose a digit more."""
    backbone = backbone_of(family, torch.float32)
    assert (backbone.geometry.through == "cache") == (family in THROUGH_THE_CACHE)
    gap = measures.gap_to_reference(family, KeysValues(backbone.geometry), dtype=torch.float32)
    most = 5e-5 if family == "mt5" else 1e-5
    assert gap < most * max(1, measures.largest_logit(family, torch.float32))


@pytest.mark.parametrize("family", FAMILIES)
def test_without_a_prompt_as_the_familys_own_attention(family) -> None:
    """Nothing that a family does inside its attention is lost on the way through ours."""
    backbone = backbone_of(family, torch.float32)
    plain: PreTrainedModel = plain_of(family, torch.float32)
    plain.set_attn_implementation("eager")
    injection = KeysValues(backbone.geometry)
    layout = measures.laid_out(backbone, injection, "keep", (0, 1), "right")
    given = {"input_ids": layout.input_ids, "attention_mask": layout.attention_mask.long()}
    if layout.source is not None:
        given = {f"decoder_{name}": tensor for name, tensor in given.items()} | {
            "input_ids": layout.source.input_ids,
            "attention_mask": layout.source.attention_mask.long(),
        }
    elif backbone.geometry.takes_positions:
        given["position_ids"] = layout.position_ids
    with torch.no_grad():
        found, expected = backbone.logits(Call(layout)), plain(**given).logits
    for row in range(2):
        own = row_logits(expected, layout, row)
        if family == "mt5":
            assert (row_logits(found, layout, row) - own).abs().max() < 5e-5 * own.abs().max()
        else:
            assert_close(row_logits(found, layout, row), own)


def test_geometry(tiny_backbone) -> None:
    geometry = tiny_backbone("qwen3").geometry
    assert geometry.sites == {
        "decoder": SiteGeometry.even(layers=3, kv_heads=2, key_dim=16, value_dim=16)
    }
    assert (geometry.width, geometry.context, geometry.vocabulary) == (32, 256, 8192)


def test_geometry_of_latent_attention() -> None:
    """Keys and values have widths of their own, and even equal ones do not lie in the cache."""
    deepseek, glm = backbone_of("deepseek_v3").geometry, backbone_of("glm4_moe_lite").geometry
    assert deepseek.main == SiteGeometry.even(layers=2, kv_heads=4, key_dim=16, value_dim=12)
    assert (deepseek.main.width, deepseek.main.head_dim) == (2 * 4 * (16 + 12), None)
    assert (glm.main.shape, glm.main.head_dim) == (Heads(4, 16, 16), 16)
    assert (deepseek.cache, glm.cache) == ("latents", "latents")
    for family in ("gpt2", "llama", "mistral", "bloom"):
        assert backbone_of(family).geometry.caches_heads, family


def test_a_model_that_transformers_cannot_run_is_refused_in_our_words() -> None:
    """LongCat's experts, of which each token is given to one alone, raise inside transformers."""
    model = plain_model("longcat_flash", torch.float32, moe_topk=1)
    said = r"family 'longcat_flash': transformers .* cannot run this model, even without a prompt"
    with pytest.raises(BackboneError, match=said):
        Backbone.wrap(model, mini_tokens())


def test_geometry_of_encoder_decoders() -> None:
    """T5's heads are wider than its states tell, and its decoder is deeper."""
    t5, bart = backbone_of("t5").geometry, backbone_of("bart").geometry
    deeper = SiteGeometry.even(layers=3, kv_heads=4, key_dim=12, value_dim=12)
    encoder = SiteGeometry.even(layers=2, kv_heads=4, key_dim=12, value_dim=12)
    assert t5.sites == {"encoder": encoder, "decoder": deeper, "cross": deeper}
    assert (t5.width, t5.context, t5.first_position) == (32, None, 0)
    assert bart.sites["decoder"] == bart.sites["cross"] == SiteGeometry.even(3, 2, 16, 16)
    assert (bart.context, bart.sites["encoder"]) == (64, SiteGeometry.even(2, 4, 8, 8))


def test_geometry_of_encoders() -> None:
    bert, roberta = backbone_of("bert").geometry, backbone_of("roberta").geometry
    assert (bert.context, bert.first_position) == (roberta.context, 0) == (64, 0)
    assert roberta.first_position == 2
    assert backbone_of("albert").geometry.width == 16
    assert backbone_of("modernbert").geometry.slides


def test_two_tables_of_words_of_different_sizes() -> None:
    """A virtual token's id lies above both."""
    own = {"share_encoder_decoder_embeddings": False, "tie_word_embeddings": False}
    for sizes in ((8192, 4096), (4096, 8192)):
        model = plain_model(
            "marian", **own, vocab_size=sizes[0], decoder_vocab_size=sizes[1], dtype=torch.float64
        )
        backbone = Backbone.wrap(model, mini_tokens())
        assert backbone.geometry.vocabulary == 8192
        injection = Embeddings(backbone, ["encoder", "decoder"])
        rows = measures.random_rows(injection)
        columns = injection.columns(measures.LENGTH)
        read = Layout.of([[5, 6, 7]], columns=columns["encoder"])
        layout = Layout.of([[2, 9]], columns=columns["decoder"], source=read)
        with torch.no_grad():
            found = backbone.logits(Call(layout, injection.prompt_of(rows)))[0, -2:]
        shares = dict(zip(("encoder", "decoder"), rows.chunk(2, dim=1), strict=True))
        expected = by_hand.embeddings_logits(model, shares, [5, 6, 7], decoder_ids=[2, 9])
        assert_close(found, expected)


def test_what_a_decoder_reads_before_an_answer() -> None:
    """Its start token, and what the tokenizer puts before a text unless it is the same."""

    @dataclass(frozen=True)
    class Leading(Tokens):
        leading: tuple[int, ...] = (2,)  # type: ignore[assignment]

    bart, t5gemma = backbone_of("bart"), backbone_of("t5gemma")
    assert (bart.begin, t5gemma.begin, backbone_of("bert").begin) == ((2,), (2,), None)
    tokenizer = bart.tokens.tokenizer
    assert replace(bart, tokens=Leading(tokenizer)).begin == (2,)
    assert replace(bart, tokens=Leading(tokenizer, leading=(0,))).begin == (2, 0)


def test_wrapping_freezes() -> None:
    model = tiny_model("gpt2").train()
    assert all(parameter.requires_grad for parameter in model.parameters())
    backbone = Backbone.wrap(model, mini_tokens())
    assert not any(parameter.requires_grad for parameter in backbone.model.parameters())
    assert not backbone.model.training


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_accepted(dtype) -> None:
    backbone = make_backbone("llama", dtype)
    assert backbone.dtype == str(dtype).removeprefix("torch.")


def test_other_models_and_unknown_names_are_refused(tmp_path) -> None:
    with pytest.raises(BackboneError, match="did you mean 'foreword/mini'"):
        load_backbone("foreword/mimi")
    with pytest.raises(BackboneError, match="cannot be loaded"):
        load_backbone(str(tmp_path), local_files_only=True)
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(BackboneError, match="is no language model"):
        load_backbone(str(tmp_path))
