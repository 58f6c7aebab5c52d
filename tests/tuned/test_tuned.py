"""A choice on every axis, composed: what is trained, folding, and the backbone beneath."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import FAMILIES, arranged, assert_close, make_backbone, random_ids
from foreword.backbone import Backbone, Call, Decoding, generate
from foreword.backbone.layout import Layout
from foreword.backbone.weights import hashing
from foreword.data import Example
from foreword.errors import UserError
from foreword.methods import HardPrompt, PrefixTuning
from foreword.methods.axes import MLP, ActivationsInit, RandomInit, Table
from foreword.recipe import TrainingSpec
from foreword.tasks.text import Templates
from foreword.training import Pair, train
from foreword.tuned import TunedModel
from foreword.tuned.compose import compose
from foreword.tuned.initial import init_tokens, initialise

LENGTH = 4
KINDS = {"table": Table(std=0.5), "mlp": MLP(hidden=16)}
HOW = Decoding(max_new_tokens=8)
TEXTS = ["The robin is a small", "Once", "name : Silver Piper | type : bird"]


def prefix(backbone: Backbone, kind: str = "mlp", **options) -> TunedModel:
    method = PrefixTuning(
        name="prefix-tuning", length=LENGTH, reparameterization=KINDS[kind], **options
    )
    return compose(backbone, method)


def louder(model: TunedModel) -> TunedModel:
    """The same with a prefix that is far from nothing, as a trained one is."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_are_the_prompts_alone(tiny_backbone, kind) -> None:
    backbone = tiny_backbone("llama")
    model = prefix(backbone, kind)
    width = 2 * 2 * 2 * 8
    expected = LENGTH * width if kind == "table" else LENGTH * 32 + 33 * 16 + 17 * width
    assert model.trained_parameters == expected
    assert all(name.startswith("reparam.") for name in model.state_dict())
    assert model.fold().trained_parameters == model.bare().trained_parameters == 0
    assert model.trained_parameters == expected, "folding must not touch the model itself"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_folded_is_bit_equal(tiny_backbone, family, dtype, kind) -> None:
    model = louder(prefix(tiny_backbone(family, dtype), kind))
    folded = model.fold()
    scored = Layout.of(random_ids([5, 3]), random_ids([3, 4], seed=1), virtual=LENGTH)
    decoded = model.placement.layout(random_ids([6, 2]), side="left")
    with torch.no_grad():
        assert torch.equal(model(scored), folded(scored))
        full = [m.backbone.logits(Call(scored, m.prompt())) for m in (model, folded)]
        assert torch.equal(*full)
        tokens = [generate(m.backbone, Call(decoded, m.prompt()), HOW) for m in (model, folded)]
    assert tokens[0] == tokens[1]


@pytest.mark.parametrize("kind", KINDS)
def test_folded_in_double_precision_is_bit_equal(tiny_backbone, kind) -> None:
    """Where the prompt itself is kept in float64, folding keeps that too."""
    model = louder(prefix(tiny_backbone("gpt2", torch.float64), kind).double())
    layout = Layout.of(random_ids([5]), random_ids([3], seed=1), virtual=LENGTH)
    with torch.no_grad():
        assert torch.equal(model(layout), model.fold()(layout))


@pytest.mark.parametrize("positions", ["shift", "keep"])
def test_folded_on_the_bundled_backbone(mini, positions) -> None:
    model = louder(prefix(mini, positions=positions))
    folded = model.fold()
    layout = arranged(model, TEXTS, side="left")
    assert model.answers(layout, HOW) == folded.answers(layout, HOW)
    assert model.answers(layout, HOW) != model.bare().answers(arranged(model.bare(), TEXTS), HOW)


def test_folding_is_a_copy(tiny_backbone) -> None:
    model = prefix(tiny_backbone("gpt2"), "table")
    folded = model.fold()
    before = folded.rows().clone()
    louder(model)
    assert torch.equal(folded.rows(), before)


@pytest.mark.parametrize("positions", ["shift", "keep"])
@pytest.mark.parametrize("family", FAMILIES)
def test_bare_is_the_backbone_itself(tiny_backbone, family, positions) -> None:
    backbone = tiny_backbone(family)
    bare = louder(prefix(backbone, positions=positions)).bare()
    assert bare.prompt() is None
    layout = bare.placement.layout(random_ids([5, 3]))
    assert layout.position_ids[0, 0] == 0
    with torch.no_grad():
        expected = backbone.model(
            input_ids=layout.input_ids, attention_mask=layout.attention_mask.long()
        ).logits
        found = backbone.logits(Call(layout, bare.prompt()))
    assert torch.equal(found[layout.attention_mask], expected[layout.attention_mask])


def test_backbone_alone_is_a_method(tiny_backbone) -> None:
    model = compose(tiny_backbone("gpt2"), HardPrompt(name="hard-prompt"))
    assert model.trained_parameters == 0
    assert model.prompt() is None
    assert model.placement.length == 0


@pytest.mark.parametrize("kind", KINDS)
def test_training_moves_the_prompt_and_no_weight(kind) -> None:
    backbone = make_backbone("opt")
    before, hashed = hashing.hash_module(backbone.model), backbone.sha256
    model = prefix(backbone, kind)
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    pairs = [Pair(*pair) for pair in zip(random_ids([4, 6]), random_ids([3, 2]), strict=True)]
    history = train(model, pairs, TrainingSpec(steps=3, batch_size=2))
    assert len(history.steps) == 3
    assert hashing.hash_module(backbone.model) == before == hashed
    assert not any(p.requires_grad or p.grad is not None for p in backbone.model.parameters())
    for name, parameter in model.named_parameters():
        assert not torch.equal(parameter, start[name]), name


def test_loss_is_that_of_each_target_token(tiny_backbone) -> None:
    model = prefix(tiny_backbone("gpt2"), "table")
    sources, targets = random_ids([5, 2]), random_ids([3, 4], seed=1)
    layout = model.placement.layout(sources, targets)
    with torch.no_grad():
        found = model(layout)
        logits = model.backbone.logits(Call(layout, model.prompt())).log_softmax(-1)
    expected = [
        -logits[row, len(source) - 1 + i, token]
        for row, (source, target) in enumerate(zip(sources, targets, strict=True))
        for i, token in enumerate(target)
    ]
    assert_close(found, torch.stack(expected))


def test_texts_are_laid_out_by_the_token_rule(mini) -> None:
    model, tokens = prefix(mini), mini.tokens
    trained = arranged(model, TEXTS, ["one", "two words", "x"])
    decoded = arranged(model, TEXTS, side="left")
    assert trained.attention_mask[:, 0].all()
    assert decoded.attention_mask[:, -1].all()
    assert trained.virtual == decoded.virtual == LENGTH
    for row, (text, answer) in enumerate(zip(TEXTS, ["one", "two words", "x"], strict=True)):
        ids = trained.input_ids[row][trained.attention_mask[row]].tolist()
        assert ids == [*tokens.source(text), *tokens.plain(answer), tokens.eos_id]
        assert decoded.input_ids[row][decoded.attention_mask[row]].tolist() == tokens.source(text)


def test_starting_from_real_words(mini) -> None:
    """A table takes their keys and values as they are; an MLP comes near, and says how near."""
    words = "The robin sings in the garden"
    init = ActivationsInit(text=words)
    ids = init_tokens(mini, init, [], LENGTH)
    assert ids == [mini.tokens.tokenizer.bos_token_id, *mini.tokens.plain(words)[1 - LENGTH :]]
    table = prefix(mini, "table")
    rows = table.injection.matrix(table.injection.real(mini, ids))
    assert initialise(table, init, []) == 0.0
    assert torch.equal(table.rows(), rows)
    mlp = prefix(mini, "mlp")
    before = (mlp.rows() - rows).square().mean().item()
    left = initialise(mlp, init, [])
    assert left is not None
    assert left < before
    assert left == pytest.approx((mlp.rows() - rows).square().mean().item(), rel=1e-4)
    start = mlp.rows().clone()
    assert initialise(mlp, RandomInit(), []) is None
    assert torch.equal(mlp.rows(), start)


@settings(max_examples=30)
@given(
    examples=st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=4), min_size=1, max_size=4),
    take=st.integers(1, 5),
    length=st.integers(1, 20),
)
def test_init_tokens_repeat_what_there_is(mini, examples, take, length) -> None:
    found = init_tokens(mini, ActivationsInit(examples=take), examples, length)
    source = [t for example in examples[:take] for t in example]
    begin = mini.tokens.tokenizer.bos_token_id
    repeated = [source[i % len(source)] for i in range(-(length - 1), 0)]
    assert found == [begin, *repeated]


def test_init_tokens_begin_once_and_end_where_an_example_ends(mini) -> None:
    begin = mini.tokens.tokenizer.bos_token_id
    examples = [[begin, 5, 6], [begin, 7]]
    assert init_tokens(mini, ActivationsInit(examples=2), examples, 6) == [begin, 6, 7, 5, 6, 7]
    with pytest.raises(UserError, match=r"method\.init"):
        init_tokens(mini, ActivationsInit(examples=1), [[begin]], 6)


def test_an_empty_input_is_refused(mini) -> None:
    """Its first target token would have no token before it but its neighbour's.

    The bundled tokenizer sets no beginning token, so an empty text has no tokens at all.
    """
    with pytest.raises(UserError, match="the input is empty"):
        Templates.of("{x}").pair(mini.tokens, Example({"x": ""}), "grey", lambda _: None)
