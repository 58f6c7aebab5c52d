"""Deltas on every family: nothing changes at first, the right weights move, in a copy alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from axes.deltas.moving import louder, texts
from conftest import assert_close
from families.catalogue import (
    DECODERS,
    ENCODER_DECODERS,
    ENCODERS,
    FAMILIES,
    WITHOUT_KEYS_VALUES,
    wrapped,
)
from foreword.axes.deltas import Adapter, BitFit, Delta, Full, LoRA, Top
from foreword.axes.deltas.bitfit import is_bias
from foreword.backbone import Backbone, Call
from foreword.backbone.weights import hashing
from foreword.errors import BackboneError, UserError

WITHOUT_ENDINGS = {
    *("deepseek_v2", "deepseek_v3", "deepseek_v32", "glm4_moe_lite", "gpt_oss", "mixtral"),
    *("gemma3n_text", "gemma4_text", "led", "mamba", "nllb-moe", "rwkv", "switch_transformers"),
}
"""Families with no place for adapters, for their experts or for what their layers end in."""
WITHOUT_LIST = {"albert": 3, "longcat_flash": 4}
"""Families where one module stands for several layers, with their numbers of layers."""
LATENT = {
    "deepseek_v2",
    "deepseek_v3",
    "deepseek_v32",
    "glm4_moe_lite",
    "longcat_flash",
    "minicpm3",
}
"""Families whose keys and values come from one linear layer, so that none is for values alone."""
WITHOUT_BIASES = {
    *(LATENT - {"deepseek_v32"}),
    *(
        "eurobert",
        "gemma",
        "gemma2",
        "gemma3_text",
        "gemma3n_text",
        "gemma4_text",
        "granite",
        "llama",
        "mistral",
        "mixtral",
    ),
    *(
        "longt5",
        "mpt",
        "mt5",
        "olmo",
        "olmo2",
        "phi3",
        "qwen3",
        "switch_transformers",
        "t5",
        "t5gemma",
        "umt5",
    ),
    "vaultgemma",
}


@pytest.fixture(scope="module", params=[*FAMILIES, *WITHOUT_KEYS_VALUES])
def backbone(request: pytest.FixtureRequest) -> Backbone:
    return wrapped(request.param)


def family(backbone: Backbone) -> str:
    return str(backbone.model.config.model_type)


def states(backbone: Backbone) -> torch.Tensor:
    layout = texts(backbone)
    if backbone.geometry.kind == "encoder-decoder":
        return backbone.logits(Call(layout))[layout.attention_mask]
    return backbone.hidden(Call(layout))[layout.attention_mask]


def check(delta: Delta, origin: Backbone) -> None:
    """The copy gives what the original gives, until what moves has moved; the original stays."""
    copy = delta.backbone
    assert copy is not None
    assert delta.origin is origin
    before = hashing.hash_module(origin.model)
    with torch.no_grad():
        expected = states(origin)
        assert_close(states(copy), expected)
        louder(delta)
        assert not torch.equal(states(copy), expected)
        assert torch.equal(states(origin), expected)
    assert hashing.hash_module(origin.model) == before
    moved = {id(parameter) for parameter in delta.parameters()}
    theirs = {p.data_ptr() for p in origin.model.parameters() if p.numel()}
    for parameter in copy.model.parameters():
        assert (id(parameter) in moved) == parameter.requires_grad
        assert (parameter.data_ptr() in theirs) == (id(parameter) not in moved)
    assert not any(p.requires_grad for p in origin.model.parameters())


def gradients(delta: Delta) -> dict[str, torch.Tensor | None]:
    """With gradient checkpointing where the family has it, as it is without."""
    assert delta.backbone is not None
    found = []
    for recomputing in (False, True):
        delta.zero_grad()
        try:
            with delta.backbone.recomputing(recomputing):
                states(delta.backbone).square().sum().backward()
        except BackboneError:
            continue
        found.append({name: p.grad for name, p in delta.tensors().items()})
    for name, gradient in found[0].items():
        if gradient is not None:
            assert_close(found[-1][name], gradient)
    return found[0]


def test_adapters(backbone: Backbone) -> None:
    if family(backbone) in {*WITHOUT_ENDINGS, *WITHOUT_LIST}:
        layers = WITHOUT_LIST.get(family(backbone))
        reason = f"no list of its {layers} layers" if layers else "no place for"
        with pytest.raises(BackboneError, match=reason):
            Adapter(backbone)
        return
    delta = Adapter(backbone, size=3, layer_norms=False, head=True)
    check(delta, backbone)
    sites = backbone.geometry.sites
    layers = sum(site.layers for site in sites.values()) + sum(
        sites[name].layers for name in ("encoder", "decoder") if name in sites
    )
    assert len(delta.tensors()) == 4 * layers
    for name, gradient in gradients(delta).items():
        assert gradient is not None, name
        assert gradient.abs().max() > 0, name


def test_biases(backbone: Backbone) -> None:
    if family(backbone) in WITHOUT_BIASES:
        with pytest.raises(UserError, match="has no biases, so BitFit has nothing to move"):
            BitFit(backbone)
        return
    delta = BitFit(backbone)
    named = dict(backbone.model.named_parameters())
    assert set(delta.tensors()) == {name for name in named if name.endswith("bias")}
    assert all(is_bias(name) for name in delta.tensors())
    # ModernBERT's one bias is that of the language-model head; DeepSeek-V3.2's are the indexer's,
    # which chooses among more tokens than these texts have.
    if family(backbone) not in {"modernbert", "deepseek_v32"}:
        check(BitFit(backbone, head=True), backbone)


def test_last_layers(backbone: Backbone) -> None:
    if family(backbone) in WITHOUT_LIST:
        reason = f"no list of its {WITHOUT_LIST[family(backbone)]} layers"
        with pytest.raises(BackboneError, match=reason):
            Top(backbone, 2)
        return
    delta = Top(backbone, 2)
    check(delta, backbone)
    count = backbone.geometry.main.layers
    for name in delta.tensors():
        number = next(int(part) for part in name.split(".") if part.isdigit())
        assert number in (count - 2, count - 1), name
        assert not name.startswith(("encoder.", "model.encoder."))
    whole = {id(p) for p in backbone.model.parameters()}
    assert 0 < len(delta.tensors()) < len(whole)
    with pytest.raises(BackboneError, match=rf"{count + 1} layers are to move, but .* has {count}"):
        Top(backbone, count + 1)


def test_low_rank_updates(backbone: Backbone) -> None:
    targets = None
    if family(backbone) in {*LATENT, "mamba"}:
        with pytest.raises(UserError, match=r"no layers for queries and values .* known by their"):
            LoRA(backbone, rank=2)
        targets = ["in_proj"] if family(backbone) == "mamba" else ["q_b_proj", "kv_b_proj"]
    delta = LoRA(backbone, rank=2, dropout=0.0, targets=targets)
    check(delta, backbone)
    everywhere = LoRA(backbone, rank=2, targets=["all"])
    if family(backbone) != "rwkv":  # where PEFT takes all of them anyway
        assert len(everywhere.tensors()) > len(delta.tensors())
    output = backbone.model.get_output_embeddings()
    linear = {n for n, m in backbone.model.named_modules() if m is not output and is_linear(m)}
    assert set(everywhere.chosen) == linear


def is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def test_everything(backbone: Backbone) -> None:
    delta = Full(backbone)
    check(delta, backbone)
    assert set(delta.tensors()) == {name for name, _ in backbone.model.named_parameters()}


def test_the_catalogue_is_whole() -> None:
    assert {*DECODERS, *ENCODERS, *ENCODER_DECODERS} == set(FAMILIES)
    assert {*FAMILIES, *WITHOUT_KEYS_VALUES} >= WITHOUT_BIASES
