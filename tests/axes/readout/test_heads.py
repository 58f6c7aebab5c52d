"""Heads: what they read is right under any padding, prompt and company."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModel, AutoModelForMaskedLM, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from conftest import LLAMA_LIKE, VOCABULARY, assert_close, make_backbone, mini_tokens, random_ids
from foreword.axes.readout import Head, SequenceHead, SpanHead, TokenHead
from foreword.backbone import Backbone
from foreword.backbone.layout import Pair
from foreword.errors import UserError
from foreword.methods import FineTuning, HeadOnly, PromptTuning, PTuningV2
from foreword.methods.axes import Table, UniformInit
from foreword.recipe import TrainingSpec
from foreword.training import train
from foreword.tuned import TunedModel
from foreword.tuned.compose import compose

LENGTH = 4
ENCODERS = {
    "bert": {},
    "roberta": {"max_position_embeddings": 258},
    "modernbert": {"local_attention": 8},
}
DECODERS = {"gpt2": {}, "llama": {}}
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 256,
    **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 1),
    **dict.fromkeys(("cls_token_id", "sep_token_id"), 1),
}
METHODS = {
    "p-tuning-v2": PTuningV2(name="p-tuning-v2", length=LENGTH),
    "prompt-tuning": PromptTuning(
        name="prompt-tuning", length=LENGTH, reparameterization=Table(std=1.0), init=UniformInit()
    ),
    "head-only": HeadOnly(name="head-only"),
}


def tiny_encoder(family: str, auto: type = AutoModelForMaskedLM) -> PreTrainedModel:
    config = CONFIG_MAPPING[family](**(SMALL | ENCODERS[family]))
    model = auto.from_config(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, 0.2, generator=generator)
    return model.double().eval()


@pytest.fixture(scope="module")
def backbones() -> dict[str, Backbone]:
    found = {family: Backbone.wrap(tiny_encoder(family), mini_tokens()) for family in ENCODERS}
    for family in DECODERS:
        found[family] = make_backbone(family, torch.float64)
    return found


def tuned(backbone: Backbone, method: str, head: type[Head], outputs: int = 3) -> TunedModel:
    torch.manual_seed(0)
    readout = head(backbone.hidden_width, outputs, dropout=0.0).double()
    torch.nn.init.normal_(readout.layers[-1].weight)
    model = compose(backbone, METHODS[method], readout).double()
    with torch.no_grad():
        for parameter in model.reparam.parameters():
            parameter.normal_()
    return model


def rows(head: type[Head], lengths: list[int], *, last: bool = False) -> list[Pair]:
    """Rows whose marks are not all at the same place."""
    pairs = []
    for ids in random_ids(lengths):
        if head is SequenceHead:
            marks: tuple[int, ...] = (len(ids) - 1 if last else 0,)
        else:
            marks = tuple(range(0, len(ids), 2))
        pairs.append(Pair(ids, marks=marks))
    return pairs


@pytest.mark.parametrize("head", [SequenceHead, TokenHead, SpanHead])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", [*ENCODERS, *DECODERS])
def test_a_row_says_the_same_in_any_company(backbones, family, method, head) -> None:
    model = tuned(backbones[family], method, head, 2 if head is SpanHead else 3)
    pairs = rows(head, [5, 9, 2], last=family in DECODERS)
    together = model.read(model.lay_out(pairs))
    for pair, found in zip(pairs, together, strict=True):
        (alone,) = model.read(model.lay_out([pair]))
        assert_close(found, alone)


@settings(max_examples=15, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    side=st.sampled_from(["left", "right"]),
    family=st.sampled_from([*DECODERS]),
)
def test_neither_padding_nor_company_moves_a_decoders_answer(
    backbones, lengths, side, family
) -> None:
    model = tuned(backbones[family], "p-tuning-v2", SequenceHead)
    pairs = rows(SequenceHead, lengths, last=True)
    layout = model.placement.layout(
        [p.source for p in pairs], side=side, marks=[p.marks for p in pairs]
    )
    for pair, found in zip(pairs, model.read(layout), strict=True):
        assert_close(found, model.read(model.lay_out([pair]))[0])


@pytest.mark.parametrize("family", ENCODERS)
def test_without_a_prompt_it_is_a_linear_layer_on_transformers_own_states(family) -> None:
    plain = tiny_encoder(family)
    model = tuned(Backbone.wrap(tiny_encoder(family), mini_tokens()), "head-only", SequenceHead)
    (pair,) = rows(SequenceHead, [7])
    with torch.no_grad():
        states = plain.base_model(input_ids=torch.tensor([pair.source])).last_hidden_state
        expected = model.readout.layers(states[0, 0]).softmax(-1)
    assert_close(model.read(model.lay_out([pair]))[0], expected)


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_virtual_columns_shift_no_mark(backbones, family) -> None:
    """As transformers computes it with the embeddings in front by hand."""
    backbone = backbones[family]
    method = METHODS["prompt-tuning"].model_copy(update={"positions": "shift"})
    readout = TokenHead(backbone.hidden_width, 3, dropout=0.0).double()
    model = compose(backbone, method, readout).double()
    (pair,) = rows(TokenHead, [7])
    body = backbone.model.base_model
    with torch.no_grad():
        own = backbone.model.get_input_embeddings()(torch.tensor([pair.source]))
        given = torch.cat([model.rows()[None], own], dim=1)
        states = body(
            inputs_embeds=given, attention_mask=torch.ones(given.shape[:2])
        ).last_hidden_state
        at = torch.tensor(pair.marks) + LENGTH
        expected = readout.layers(states[0, at]).softmax(-1)
    assert_close(model.read(model.lay_out([pair]))[0], expected)


def test_a_span_is_told_by_its_ordinals(backbones) -> None:
    """The loss is that of begin and end among the marked tokens, whatever the row's length."""
    model = tuned(backbones["bert"], "p-tuning-v2", SpanHead, 2)
    pairs = [
        Pair(ids, marks=(0, *range(2, len(ids))), labels=(1, len(ids) - 3))
        for ids in random_ids([9, 5])
    ]
    with torch.no_grad():
        losses = model(model.lay_out(pairs)).view(2, 2)
    said = model.read(model.lay_out(pairs))
    for pair, found, loss in zip(pairs, said, losses, strict=True):
        assert found.shape == (2, len(pair.marks))
        torch.testing.assert_close(found.exp().sum(1), torch.ones(2).double())
        expected = -torch.stack([found[0, pair.labels[0]], found[1, pair.labels[1]]])
        assert_close(loss, expected)


@pytest.mark.parametrize("method", METHODS)
def test_head_and_prompt_learn(method) -> None:
    """Two kinds of rows that a head can tell by their first token, on a frozen encoder."""
    backbone = Backbone.wrap(tiny_encoder("bert", AutoModel), mini_tokens())
    before = {name: p.clone() for name, p in backbone.model.named_parameters()}
    model = compose(backbone, METHODS[method], SequenceHead(32, 2))
    pairs = [
        Pair([5 + 90 * (i % 2), *ids], marks=(0,), labels=(i % 2,))
        for i, ids in enumerate(random_ids([4] * 16))
    ]
    spec = TrainingSpec(steps=60, batch_size=8, learning_rate=0.01, best_by=None)
    history = train(model, pairs, spec)
    assert history.steps[-1]["loss"] < 0.5 * history.steps[0]["loss"]
    for name, parameter in backbone.model.named_parameters():
        assert torch.equal(parameter, before[name]), name


def test_fine_tuning_moves_a_copy() -> None:
    backbone = Backbone.wrap(tiny_encoder("bert", AutoModel).float(), mini_tokens())
    before = {name: p.clone() for name, p in backbone.model.named_parameters()}
    model = compose(backbone, FineTuning(name="fine-tuning"), SequenceHead(32, 2))
    pairs = [Pair(ids, marks=(0,), labels=(i % 2,)) for i, ids in enumerate(random_ids([4] * 4))]
    train(model, pairs, TrainingSpec(steps=2, batch_size=4, learning_rate=0.01, best_by=None))
    assert not backbone.model.training
    for name, parameter in backbone.model.named_parameters():
        assert torch.equal(parameter, before[name]), name
    moved = model.delta.tensors()
    assert set(before) - set(moved) == {name for name in before if "pooler" in name}
    assert not any(torch.equal(tensor, before[name]) for name, tensor in moved.items())


def test_dropout_acts_in_training_steps_alone(backbones) -> None:
    backbone = backbones["bert"]
    model = compose(backbone, METHODS["head-only"], SequenceHead(32, 3, dropout=0.5).double())
    layout = model.lay_out([Pair(ids, marks=(0,), labels=(0,)) for ids in random_ids([5, 5])])
    assert not torch.equal(model(layout), model(layout))
    with torch.no_grad():
        assert torch.equal(model(layout), model(layout))


def test_an_encoder_writes_nothing_and_an_encoder_decoder_has_no_head(backbones) -> None:
    with pytest.raises(UserError, match="is an encoder, which writes no text"):
        compose(backbones["bert"], METHODS["p-tuning-v2"])
    assert LLAMA_LIKE


def test_layers_of_a_deep_prompt_are_a_choice(backbones) -> None:
    """P-Tuning v2's depth study: the prompt of some layers alone trains those alone."""
    method = METHODS["p-tuning-v2"].model_copy(update={"layers": (-1,)})
    model = compose(backbones["bert"], method, SequenceHead(32, 2).double())
    assert model.injection.width == 2 * 32
    prompt = model.prompt()
    assert prompt is not None
    assert prompt.sites["encoder"].layers == (1,)
