"""Heads of several labels and of numbers: transformers' own losses, and learning."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2ForSequenceClassification,
    PreTrainedModel,
)

from conftest import VOCABULARY, assert_close, make_backbone, mini_tokens, random_ids
from foreword.axes.readout import LabelsHead, NumberHead
from foreword.backbone import Backbone
from foreword.backbone.layout import Pair
from foreword.methods import HeadOnly, PTuningV2
from foreword.recipe import HeadSpec, TrainingSpec
from foreword.tasks.head import new_head, start_head
from foreword.training import train
from foreword.training.held_out import dev_loss
from foreword.tuned.compose import compose

SEVERAL = [(1, 0, 1), (0, 0, 0), (1, 1, 1), (0, 1, 0)]
NUMBERS = [(0.5,), (-2.25,), (3.0,), (100.0,)]
HEADS: dict[str, Any] = {
    "multi_label_classification": (LabelsHead, 3, SEVERAL),
    "regression": (NumberHead, 1, NUMBERS),
}


def bert(problem: str, outputs: int) -> BertForSequenceClassification:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=64,
        initializer_range=0.2,
        num_labels=outputs,
        problem_type=problem,
    )
    return BertForSequenceClassification(config).double().eval()


def theirs(model: PreTrainedModel, ids: list[list[int]], labels: Any) -> Any:
    right = torch.tensor(labels, dtype=torch.float64)
    if right.shape[1] == 1:
        right = right[:, 0]
    return model(input_ids=torch.tensor(ids), labels=right)


@pytest.mark.parametrize("problem", HEADS)
def test_the_loss_on_an_encoder_is_transformers_own(problem: str) -> None:
    kind, outputs, labels = HEADS[problem]
    model = bert(problem, outputs)
    backbone = Backbone.wrap(model.bert, mini_tokens())
    spec = HeadSpec(pooler="frozen", dropout=0.0)
    head = new_head(spec, kind, backbone, outputs).double()
    start_head(spec, head, backbone)
    with torch.no_grad():
        head.layers[-1].weight.copy_(model.classifier.weight)
        head.layers[-1].bias.copy_(model.classifier.bias)
    ours = compose(backbone, HeadOnly(name="head-only"), head).double()
    ids = random_ids([6] * 4)
    pairs = [Pair(row, [], (0,), own) for row, own in zip(ids, labels, strict=True)]
    loss = ours(ours.lay_out(pairs))
    assert loss.numel() == 4 * outputs == sum(pair.answers for pair in pairs)
    expected = theirs(model, ids, labels)
    assert loss.mean().item() == pytest.approx(expected.loss.item(), abs=1e-9)
    expected.loss.backward()
    loss.mean().backward()
    assert_close(head.layers[-1].weight.grad, model.classifier.weight.grad)
    said = torch.stack(ours.read(ours.lay_out(pairs)))
    logits = expected.logits.detach()
    assert_close(said, logits if outputs == 1 else logits.sigmoid())


@pytest.mark.parametrize("problem", HEADS)
def test_the_loss_on_a_decoder_is_transformers_own(problem: str) -> None:
    """Rows of different lengths, padded here on the right and there on the left."""
    kind, outputs, labels = HEADS[problem]
    backbone = make_backbone("gpt2", torch.float64)
    config = type(backbone.model.config).from_dict(
        {**backbone.model.config.to_dict(), "num_labels": outputs, "problem_type": problem}
    )
    model = GPT2ForSequenceClassification(config).double().eval()
    model.transformer.load_state_dict(backbone.model.transformer.state_dict())
    head = kind(backbone.hidden_width, outputs, dropout=0.0).double()
    with torch.no_grad():
        head.layers[0].weight.copy_(model.score.weight)
    ours = compose(backbone, HeadOnly(name="head-only"), head).double()
    rows = random_ids([3, 7, 5, 7])
    pairs = [Pair(row, [], (len(row) - 1,), own) for row, own in zip(rows, labels, strict=True)]
    losses = [
        theirs(model, [row], [own]).loss.item() for row, own in zip(rows, labels, strict=True)
    ]
    assert ours(ours.lay_out(pairs)).mean().item() == pytest.approx(
        sum(losses) / 4, rel=1e-9, abs=1e-9
    )
    assert dev_loss(ours, pairs, 3) == pytest.approx(sum(losses) / 4, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("problem", HEADS)
def test_a_step_of_training_is_torchs_own(problem: str) -> None:
    """The same first losses, whatever the batch is parted into, as a plain loop has them."""
    kind, outputs, labels = HEADS[problem]
    backbone = make_backbone("gpt2", torch.float64)
    pairs = [
        Pair(row, [], (len(row) - 1,), own)
        for row, own in zip(random_ids([5] * 4), labels, strict=True)
    ]

    def losses(batch: int, accumulation: int) -> list[float]:
        torch.manual_seed(0)
        method = PTuningV2(name="p-tuning-v2", length=2)
        model = compose(backbone, method, kind(32, outputs, dropout=0.0).double()).double()
        spec = TrainingSpec(
            steps=5, batch_size=batch, accumulation=accumulation, learning_rate=0.01, best_by=None
        )
        return [step["loss"] for step in train(model, pairs, spec).steps]

    whole = losses(4, 1)
    assert losses(2, 2) == pytest.approx(whole, rel=1e-9)
    assert whole[-1] < whole[0]
