"""Prompts beside transformers' own heads for labels and tags."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    BertForMaskedLM,
    PreTrainedModel,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

import foreword
from conftest import VOCABULARY, assert_close, mini_tokens, random_ids, tiny_model
from foreword.attached import AttachedModel
from foreword.backbone import Backbone, Call
from foreword.errors import UserError

LABELS = {0: "bird", 1: "tree", 2: "town"}
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "id2label": LABELS,
    "initializer_range": 0.3,
}
TEXTS = ["the bird is grey", "a tree", "the town on a river is old and large"]
LABEL, TAGS = AutoModelForSequenceClassification, AutoModelForTokenClassification


def classifier(family: str, auto: Any = LABEL, **settings: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    sizes = {**SIZES, **({"embedding_size": 32} if family == "albert" else {}), **settings}
    return auto.from_config(CONFIG_MAPPING[family](**sizes)).double().eval()


def attach(model: PreTrainedModel, method: str = "prefix-tuning") -> AttachedModel:
    torch.manual_seed(1)
    tokenizer = mini_tokens().tokenizer
    made = foreword.attach(model, method, tokenizer=tokenizer, length=4).to(model.dtype)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return made


def padded(rows: list[list[int]], side: str) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, rows))
    idle = [[0] * (width - len(row)) for row in rows]
    left = side == "left"
    ids = [[*pad, *row] if left else [*row, *pad] for pad, row in zip(idle, rows, strict=True)]
    masks = [[0] * len(pad) + [1] * len(row) for pad, row in zip(idle, rows, strict=True)]
    return torch.tensor(ids), torch.tensor(masks if left else [mask[::-1] for mask in masks])


@pytest.mark.parametrize("method", ["prefix-tuning", "p-tuning-v2", "prompt-tuning"])
@pytest.mark.parametrize("family", ["bert", "roberta", "albert"])
def test_an_artifact_tells_the_same_labels(family: str, method: str, tmp_path: Path) -> None:
    base = classifier(family)
    model = attach(base, method)
    tokens = model.prompt.backbone.tokens
    ids, mask = padded([tokens.source(text) for text in TEXTS], "right")
    output = model(ids, mask, torch.tensor([0, 2, 1]))
    assert output.logits.shape == (3, 3)
    expected = torch.nn.functional.cross_entropy(output.logits, torch.tensor([0, 2, 1]))
    assert output.loss.item() == pytest.approx(expected.item(), rel=1e-6)
    output.loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert {name.split(".")[0] for name in model.state_dict()} == {"prompt", "head"}
    model.save_pretrained(tmp_path / "labels")
    body = copy.deepcopy(base.base_model)
    foreword.detach(model)
    loaded = foreword.load(tmp_path / "labels", backbone=Backbone.wrap(body, mini_tokens()))
    told = [prediction.probabilities for prediction in loaded.predict(TEXTS)]
    for row, shares in zip(output.logits.softmax(-1), told, strict=True):
        assert shares is not None
        assert list(shares) == list(LABELS.values())
        assert list(shares.values()) == pytest.approx(row.tolist(), abs=1e-6)


PROBLEMS: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "several labels": (
        {"problem_type": "multi_label_classification"},
        [[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 1.0, 1.0]],
    ),
    "several labels, told by the batch": ({}, [[1.0, 0.0, 1.0], [0.0] * 3, [0.0, 1.0, 1.0]]),
    "a number": ({"num_labels": 1, "problem_type": "regression"}, [0.5, -2.0, 3.25]),
    "a number, told by the outputs": ({"num_labels": 1}, [0.5, -2.0, 3.25]),
}


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_an_artifact_tells_the_same_labels_and_numbers(
    family: str, problem: str, tmp_path: Path
) -> None:
    settings, right = PROBLEMS[problem]
    base = classifier(family, **settings)
    before = base.config.problem_type
    model = attach(base)
    tokens = model.prompt.backbone.tokens
    ids, mask = padded([tokens.source(text) for text in TEXTS], "right")
    output = model(ids, mask, torch.tensor(right, dtype=torch.float64))
    several = output.logits.shape[1] > 1
    functions = torch.nn.functional
    loss = functions.binary_cross_entropy_with_logits if several else functions.mse_loss
    shape = output.logits.shape
    expected = loss(output.logits, torch.tensor(right, dtype=torch.float64).view(shape))
    assert output.loss.item() == pytest.approx(expected.item(), rel=1e-9)
    manifest = model.save_pretrained(tmp_path / "it")
    assert manifest is not None
    assert manifest.task.answer == ("labels" if several else "number")
    body = copy.deepcopy(base.base_model)
    foreword.detach(model)
    assert base.config.problem_type == before
    loaded = foreword.load(tmp_path / "it", backbone=Backbone.wrap(body, mini_tokens()))
    for row, told in zip(output.logits, loaded.predict(TEXTS), strict=True):
        if several:
            assert list(told.probabilities) == list(LABELS.values())
            assert list(told.probabilities.values()) == pytest.approx(row.sigmoid().tolist())
            assert told.answer == tuple(LABELS[i] for i in range(3) if row[i] >= 0)
        else:
            assert told.answer == pytest.approx(row.item())


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("method", ["prefix-tuning", "prompt-tuning"])
def test_tags_are_those_of_our_own_layout(method: str, side: str) -> None:
    model = attach(classifier("bert", TAGS), method)
    rows = random_ids([7, 4])
    ids, mask = padded(rows, side)
    labels = torch.randint(0, 3, ids.shape).masked_fill(mask == 0, -100)
    output = model(ids, mask, labels)
    assert output.logits.shape == (2, 7, 3)
    own = model.prompt
    for number, row in enumerate(rows):
        states = own.backbone.hidden(Call(own.arrange([row]), own.prompt()))[0, -len(row) :]
        expected = own.backbone.model.classifier(states)
        assert_close(output.logits[number][mask[number] == 1], expected)
    output.loss.backward()


def test_tags_become_an_artifact(tmp_path: Path) -> None:
    base = classifier("bert", TAGS).float()
    model = attach(base)
    words = TEXTS[2].split()
    laid = model.prompt.backbone.tokens.words(words, None, 0)
    ((ids, read),) = laid
    best = model(torch.tensor([ids])).logits[0].argmax(-1)
    model.save_pretrained(tmp_path / "tags")
    body = copy.deepcopy(base.base_model)
    foreword.detach(model)
    loaded = foreword.load(tmp_path / "tags", backbone=Backbone.wrap(body, mini_tokens()))
    (told,) = loaded.predict([{"words": words}])
    assert told.answer == tuple(LABELS[int(best[read[number]])] for number in range(len(words)))


def test_detach_gives_the_head_back_as_it_was() -> None:
    base = classifier("bert")
    ids = torch.tensor(random_ids([6]))
    with torch.no_grad():
        before = base(ids).logits
    head, dropout = base.classifier, base.dropout
    model = attach(base).train()
    assert base.classifier is not head
    assert base.dropout.training
    assert not base.bert.training
    foreword.detach(model)
    assert base.classifier is head
    assert base.dropout is dropout
    with torch.no_grad():
        assert torch.equal(base(ids).logits, before)


def test_a_checkpoints_own_head_may_have_been_trained_on(tmp_path: Path) -> None:
    classifier("bert").float().save_pretrained(tmp_path / "base")
    mini_tokens().tokenizer.save_pretrained(tmp_path / "base")
    base = LABEL.from_pretrained(tmp_path / "base")
    model = attach(base)
    ids = torch.tensor([model.prompt.backbone.tokens.source(TEXTS[0])])
    expected = model(ids).logits.softmax(-1)[0].tolist()
    model.save_pretrained(tmp_path / "labels")
    (told,) = foreword.load(tmp_path / "labels").predict(TEXTS[:1])
    assert told.probabilities is not None
    assert list(told.probabilities.values()) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: classifier("electra"), "has a layer with GELU before its linear layer"),
        (lambda: classifier("gpt2", pad_token_id=0), "a decoder's head stands on the last token"),
        (
            lambda: classifier("bert", problem_type="regression"),
            "its problem type is regression, but its head has 3 outputs",
        ),
        (
            lambda: classifier("bert", problem_type="multi_label_classification", num_labels=1),
            "its problem type is multi_label_classification, but its head has 1 output",
        ),
        (lambda: classifier("bert", TAGS, id2label={0: "O"}), "has 1 outputs"),
        (
            lambda: BertForMaskedLM(CONFIG_MAPPING["bert"](**SIZES)),
            "BertForMaskedLM neither writes text nor tells labels",
        ),
        (lambda: tiny_model("gpt2").transformer, "GPT2Model neither writes text"),
    ],
)
def test_heads_that_no_artifact_holds_are_refused(make: Any, message: str) -> None:
    model = make()
    names = [name for name, _ in model.named_modules()]
    with pytest.raises(UserError, match=message):
        foreword.attach(model, "prefix-tuning")
    assert [name for name, _ in model.named_modules()] == names


def test_a_head_writes_nothing() -> None:
    with pytest.raises(UserError, match="BertForSequenceClassification writes no text"):
        attach(classifier("bert")).generate(torch.tensor([[1, 2]]))
