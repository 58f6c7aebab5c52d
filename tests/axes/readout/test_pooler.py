"""A backbone's own pooler before a head, as transformers' sequence classifiers have it."""

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from conftest import VOCABULARY, assert_close, make_backbone, mini_tokens, random_ids
from foreword.axes.readout import SequenceHead
from foreword.backbone import Backbone
from foreword.backbone.layout import Pair
from foreword.errors import RecipeError, UserError
from foreword.methods import HeadOnly
from foreword.recipe import HeadSpec, parse_recipe
from foreword.tasks.head import new_head, start_head
from foreword.tuned.compose import compose

TASK = {"data": {"format": "jsonl", "train": "a.jsonl", "label": "label"}}


@pytest.fixture
def classifier() -> BertForSequenceClassification:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=64,
        initializer_range=0.2,
        num_labels=3,
    )
    return BertForSequenceClassification(config).double().eval()


def test_the_same_as_transformers(classifier: BertForSequenceClassification) -> None:
    backbone = Backbone.wrap(classifier.bert, mini_tokens())
    options = HeadSpec(pooler="frozen")
    head = new_head(options, SequenceHead, backbone, 3).double()
    start_head(options, head, backbone)
    with torch.no_grad():
        head.layers[-1].weight.copy_(classifier.classifier.weight)
        head.layers[-1].bias.copy_(classifier.classifier.bias)
    model = compose(backbone, HeadOnly(name="head-only"), head).double()
    assert model.trained_parameters == sum(p.numel() for p in classifier.classifier.parameters())
    rows = random_ids([7, 7])
    with torch.no_grad():
        expected = classifier(input_ids=torch.tensor(rows)).logits.softmax(-1)
    found = model.read(model.lay_out([Pair(ids, [], (0,), (0,)) for ids in rows]))
    assert_close(torch.stack(found), expected)


def test_trained_moves_both_layers(classifier: BertForSequenceClassification) -> None:
    backbone = Backbone.wrap(classifier.bert, mini_tokens())
    head = new_head(HeadSpec(pooler="trained"), SequenceHead, backbone, 3)
    assert all(p.requires_grad for p in head.parameters())


def test_dropout_acts_behind_the_pooler() -> None:
    torch.manual_seed(0)
    head = SequenceHead(8, 4, dropout=0.5, hidden=8, drops_hidden=True).train()
    states = torch.randn(1, 8)
    seen: list[torch.Tensor] = []
    head.layers[0].register_forward_hook(lambda _, given, output: seen.append(given[0]))
    assert not torch.equal(head.logits(states), head.logits(states))
    assert torch.equal(seen[0], states)
    assert torch.equal(seen[1], states)


def test_a_backbone_without_one_is_named() -> None:
    backbone = make_backbone("gpt2", torch.float64)
    options = HeadSpec(pooler="frozen")
    head = new_head(options, SequenceHead, backbone, 3)
    with pytest.raises(UserError, match=r"task\.head\.pooler: .* holds no pooler"):
        start_head(options, head, backbone)


@pytest.mark.parametrize(
    ("head", "line"),
    [
        ({"pooler": "frozen", "hidden": 8}, "give either `pooler` or `hidden`"),
        ({"pooler": "frozen", "pooling": "mean"}, "`pooling` is mean"),
    ],
)
def test_what_does_not_go_together(head: dict[str, object], line: str) -> None:
    recipe = {"version": 1, "name": "x", "backbone": "m", "method": "head-only"}
    with pytest.raises(RecipeError, match=line):
        parse_recipe({**recipe, "task": {**TASK, "head": head}})
    tags = {"data": {"format": "conll", "train": "a.txt"}, "head": {"pooler": "frozen"}}
    with pytest.raises(RecipeError, match="is for tasks with labels"):
        parse_recipe({**recipe, "task": tags})
