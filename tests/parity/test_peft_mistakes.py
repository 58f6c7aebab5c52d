"""What PEFT 0.21.2 gets wrong on some family, right here; a test fails once PEFT has mended it.

Models are tiny and random, in float64. Where a mistake is one of a whole class of families, one or
two of them stand for it; `python scripts/family_tables.py` measures all.
"""

from collections.abc import Iterator
from typing import Any

import peft
import pytest
import torch
from torch import Tensor

from conftest import row_logits
from families import by_hand, measures
from families.catalogue import POSITIONS, plain_model, wrapped
from families.measures import LENGTH, SOURCES, START, TARGETS, TOLERANCE, backbone_of
from foreword.axes.injection import Embeddings, KeysValues
from foreword.backbone import Call
from foreword.backbone.layout import Layout
from foreword.methods import PrefixTuning, PromptTuning
from foreword.methods.axes import MLP, Table
from foreword.tuned.compose import compose

pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",
    "ignore:Position ids are not supported for parameter efficient tuning:UserWarning",
)
EVEN: dict[str, dict[str, Any]] = {
    "t5": {"d_kv": 8, "num_layers": 4, "num_decoder_layers": 4},
    "bart": {"encoder_layers": 4, "decoder_layers": 4, "decoder_attention_heads": 4},
}
"""Shapes that PEFT takes: equal depths and heads."""


@pytest.fixture(autouse=True)
def _exactly() -> Iterator[None]:
    with by_hand.ExactFloat64():
        yield


def peft_of(family: str, method: str, task: str, **overrides: Any) -> Any:
    config = {
        "prefix": peft.PrefixTuningConfig,
        "prompt": peft.PromptTuningConfig,
        "p-tuning": peft.PromptEncoderConfig,
    }[method](task_type=task, num_virtual_tokens=LENGTH)
    return peft.get_peft_model(plain_model(family, **overrides), config).double().eval()


def inputs(rows: tuple[int, ...] = (0,), **layout: Any) -> dict[str, Tensor]:
    """Some of the sources as a user gives them to PEFT."""
    laid = Layout.of([SOURCES[row] for row in rows], **layout)
    return {"input_ids": laid.input_ids, "attention_mask": laid.attention_mask.long()}


def written() -> dict[str, Tensor]:
    return {"decoder_input_ids": torch.tensor([[START, *TARGETS[0]]])}


def weight_of(model: Any) -> Tensor:
    weight: Tensor = model.prompt_encoder["default"].embedding.weight
    return weight


def prefix_of(family: str, **overrides: Any) -> Any:
    method = PrefixTuning(name="prefix-tuning", length=LENGTH, reparameterization=Table(std=1.0))
    return compose(wrapped(family, **overrides), method).double()


@pytest.mark.parametrize("family", EVEN)
def test_1_a_prefix_for_every_attention_and_no_dead_half(family) -> None:
    """PEFT: nothing for the encoder and the cross-attention; layers i and i + L/2 of the decoder
    share one prefix, and half of the table never gets a gradient."""
    ours = prefix_of(family, **EVEN[family])
    ours(ours.arrange(SOURCES[:1], TARGETS[:1])).sum().backward()
    for table in ours.parameters():
        assert (table.grad != 0).all()
    assert set(ours.injection.sites) == {"encoder", "decoder", "cross"}

    theirs = peft_of(family, "prefix", "SEQ_2_SEQ_LM", **EVEN[family])
    plain = plain_model(family, **EVEN[family])
    with torch.no_grad():
        bare = plain.get_encoder()(**inputs()).last_hidden_state
        read = theirs(**inputs(), **written()).encoder_last_hidden_state
    assert torch.equal(bare, read)
    theirs(**inputs(), **written()).logits.square().mean().backward()
    gradient = weight_of(theirs).grad
    assert gradient is not None
    alive, dead = gradient.view(LENGTH, 2, 2, -1).unbind(2)
    assert (alive != 0).all()
    assert not dead.any()
    layers = theirs.get_prompt(batch_size=1).self_attention_cache.layers
    for one, other in zip(layers[:2], layers[2:], strict=True):
        assert torch.equal(one.keys, other.keys)
        assert torch.equal(one.values, other.values)


@pytest.mark.parametrize("method", ["prompt", "p-tuning"])
def test_2_no_virtual_token_that_nothing_reads(method) -> None:
    """PEFT: as many again are allocated, trained and saved."""
    ours = compose(backbone_of("t5"), PromptTuning(name="prompt-tuning", length=LENGTH))
    assert ours.trained_parameters == LENGTH * 32

    theirs = peft_of("t5", method, "SEQ_2_SEQ_LM")
    table = weight_of(theirs)
    assert table.shape[0] == 2 * LENGTH
    theirs(**inputs(), **written()).logits.square().mean().backward()
    assert table.grad is not None
    assert table.grad[:LENGTH].any()
    assert not table.grad[LENGTH:].any()
    assert len(theirs.get_prompt_embedding_to_save("default")) == 2 * LENGTH


@pytest.mark.parametrize(
    ("family", "overrides"),
    [
        ("t5", {**EVEN["t5"], "d_kv": 12}),
        ("t5", {**EVEN["t5"], "num_decoder_layers": 6}),
        ("bart", {**EVEN["bart"], "decoder_layers": 6}),
        ("bart", {**EVEN["bart"], "decoder_attention_heads": 2}),
    ],
    ids=["d_kv", "deeper decoder", "deeper decoder, bart", "other heads"],
)
def test_3_encoder_decoders_of_any_shape(family, overrides) -> None:
    """PEFT raises in the first forward pass."""
    ours = prefix_of(family, **overrides)
    loss = ours(ours.arrange(SOURCES, TARGETS)).sum()
    loss.backward()
    assert all((table.grad != 0).all() for table in ours.parameters())

    theirs = peft_of(family, "prefix", "SEQ_2_SEQ_LM", **overrides)
    with pytest.raises((RuntimeError, IndexError), match=r"must match|out of range"):
        theirs(**inputs(), **written())


@pytest.mark.parametrize("family", ["albert", "distilbert", "nomic_bert"])
def test_3_a_prefix_is_seen(family) -> None:
    """PEFT: whatever it is, the logits are those of the bare model."""
    assert measures.gap_to_reference(family, KeysValues(backbone_of(family).geometry)) < TOLERANCE

    sizes = {"token_dim": 32, "num_attention_heads": 4, "num_layers": 3}
    theirs = measures.peft_model(family, "prefix-tuning", **sizes)
    with torch.no_grad():
        weight_of(theirs).normal_(0.0, 10.0)
        bare = measures.plain_of(family)(**inputs()).logits
        assert (theirs(**inputs()).logits - bare).abs().max() < TOLERANCE


def test_3_modernbert() -> None:
    """PEFT raises: the mask of a layer with a window is not widened."""
    theirs = peft_of("modernbert", "prefix", "FEATURE_EXTRACTION")
    with pytest.raises(RuntimeError, match="must match the size of tensor b"):
        theirs(**inputs())
    geometry = backbone_of("modernbert").geometry
    assert measures.gap_to_reference("modernbert", KeysValues(geometry)) < TOLERANCE


@pytest.mark.parametrize("method", ["prefix", "prompt"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_6_left_padding_moves_nothing(family, method) -> None:
    """PEFT: the prompt stands before the padding and position ids are dropped, so a longer
    batch-mate changes a row's logits."""
    theirs = peft_of(family, method, "CAUSAL_LM")
    with torch.no_grad():
        weight_of(theirs).normal_(0.0, 1.0)
        alone = theirs(**inputs((1,))).logits[0, -len(SOURCES[1]) :]
        beside = theirs(**inputs((0, 1), side="left")).logits[1, -len(SOURCES[1]) :]
    assert (alone - beside).abs().max() > 0.1

    backbone = backbone_of(family)
    injection = KeysValues(backbone.geometry) if method == "prefix" else Embeddings(backbone)
    prompt = injection.prompt_of(weight_of(theirs).detach())
    layout = measures.laid_out(backbone, injection, "shift", (0, 1), "left")
    with torch.no_grad():
        found = row_logits(backbone.logits(Call(layout, prompt)), layout, 1)
    assert (alone - found).abs().max() < TOLERANCE


@pytest.mark.parametrize("family", ["gpt2", "bloom", "bert", "t5"])
def test_9_layers_can_be_computed_again(family) -> None:
    """PEFT refuses gradient checkpointing of a prefix; here it gives the same gradients
    (tests/families/test_gradients.py)."""
    task = measures.TASKS[backbone_of(family).geometry.kind]
    overrides = EVEN.get(family, {})
    model = plain_model(family, **overrides)
    model.activation_checkpointing_enable()
    config = peft.PrefixTuningConfig(task_type=task, num_virtual_tokens=LENGTH)
    with pytest.raises(ValueError, match="does not work with gradient checkpointing"):
        peft.get_peft_model(model, config)

    backbone = backbone_of(family)
    injection = KeysValues(backbone.geometry)
    rows = measures.random_rows(injection).requires_grad_()
    layout = measures.laid_out(backbone, injection, "keep", (0,), "right")
    with backbone.recomputing():
        logits = backbone.logits(Call(layout, injection.prompt_of(rows)))
    assert logits.requires_grad


@pytest.mark.parametrize("family", ["bert", "roberta"])
@pytest.mark.parametrize("method", ["prefix", "prompt"])
def test_10_a_prompt_takes_no_position_slot(family, method) -> None:
    """PEFT: a model with 64 positions reads 64 - P tokens, and raises at one more."""
    ids = (SOURCES[0] * 5)[:POSITIONS]
    theirs = peft_of(family, method, "FEATURE_EXTRACTION")
    short = {"input_ids": torch.tensor([ids[LENGTH:]])}
    full = {"input_ids": torch.tensor([ids])}
    with torch.no_grad():
        assert theirs(**short).logits.isfinite().all()
        with pytest.raises((IndexError, RuntimeError)):
            theirs(**full)

    backbone = backbone_of(family)
    injection = KeysValues(backbone.geometry) if method == "prefix" else Embeddings(backbone)
    layout = Layout.of(
        [ids],
        columns=injection.columns(LENGTH).get("encoder", ()),
        positions="keep",
        first_position=backbone.geometry.first_position,
    )
    with torch.no_grad():
        prompt = injection.prompt_of(measures.random_rows(injection))
        assert backbone.logits(Call(layout, prompt)).shape[1] >= POSITIONS


def test_11_an_mlp_runs_once_for_a_batch() -> None:
    """PEFT: once for every row, and in evaluation too."""
    seen: list[int] = []

    def count(module: Any, given: tuple[Tensor, ...], output: Tensor) -> None:
        seen.append(given[0].numel() // given[0].shape[-1])

    config = peft.PrefixTuningConfig(
        task_type="CAUSAL_LM",
        num_virtual_tokens=LENGTH,
        prefix_projection=True,
        encoder_hidden_size=8,
    )
    theirs = peft.get_peft_model(plain_model("gpt2"), config).double().eval()
    theirs.prompt_encoder["default"].transform.register_forward_hook(count)
    with torch.no_grad():
        theirs(**inputs((0, 1, 2)))
    assert seen == [3 * LENGTH]

    seen.clear()
    method = PrefixTuning(name="prefix-tuning", length=LENGTH, reparameterization=MLP(hidden=8))
    ours = compose(backbone_of("gpt2"), method).double()
    (mlp,) = ours.reparam.makers.values()  # type: ignore[union-attr, operator]
    mlp.transform.register_forward_hook(count)
    ours(ours.arrange(SOURCES, TARGETS))
    assert seen == [LENGTH]
    seen.clear()
    folded = ours.fold()
    seen.clear()
    with torch.no_grad():
        folded(ours.arrange(SOURCES, TARGETS))
    assert seen == []


def test_11_logits_where_a_target_is_read() -> None:
    """PEFT: at virtual tokens and at the source too."""
    theirs = peft_of("gpt2", "prompt", "CAUSAL_LM")
    with torch.no_grad():
        assert theirs(**inputs()).logits.shape[1] == LENGTH + len(SOURCES[0])

    backbone = backbone_of("gpt2")
    ours = compose(backbone, PromptTuning(name="prompt-tuning", length=LENGTH)).double()
    layout = ours.arrange(SOURCES, TARGETS)
    with torch.no_grad():
        logits = backbone.logits(Call(layout, ours.prompt()), layout.reading_positions())
    assert logits.shape[:-1] == (sum(map(len, TARGETS)),)
