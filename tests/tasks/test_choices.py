"""Choices: scored as each alone, trained with transformers' and the paper's losses."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForSeq2SeqLM,
    BertConfig,
    BertForMaskedLM,
    BertForMultipleChoice,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from conftest import VOCABULARY, assert_close, make_backbone, mini_tokens
from families import by_hand
from foreword.backbone import Backbone
from foreword.data import Example
from foreword.errors import BackboneError, DataError
from foreword.methods import HardPrompt, HeadOnly, InfixTuning, PrefixTuning, PromptTuning
from foreword.methods.axes import Table, UniformInit
from foreword.recipe import TaskId, TrainingSpec
from foreword.tasks import BoundTask, Request, answer_together, task_of
from foreword.training import train
from foreword.tuned.compose import compose

ROWS = [
    ("the grey otter swims", ("in a cold river", "near us", "and so it sings to the old town"), 0),
    ("it was late", ("so they left", "the the the the"), 1),
    ("a", ("b", "a bird of the cold north", "b"), 2),
]
T5 = {
    "vocab_size": VOCABULARY,
    "pad_token_id": 0,
    "eos_token_id": 0,
    "bos_token_id": 0,
    "decoder_start_token_id": 0,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 4,
}
TABLE = Table(std=1.0)
METHODS: dict[str, Any] = {
    "none": HardPrompt(name="hard-prompt"),
    "prefix": PrefixTuning(name="prefix-tuning", length=3, reparameterization=TABLE),
    "soft": PromptTuning(
        name="prompt-tuning", length=2, reparameterization=TABLE, init=UniformInit()
    ),
    "infix": InfixTuning(name="infix-tuning", length=2, reparameterization=TABLE),
}


@pytest.fixture(autouse=True)
def _exactly() -> Iterator[None]:
    with by_hand.ExactFloat64():
        yield


def loud(model: Any) -> Any:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, 0.2, generator=generator)
    return model.double().eval()


@pytest.fixture(scope="module")
def backbones() -> dict[str, Backbone]:
    t5 = loud(AutoModelForSeq2SeqLM.from_config(CONFIG_MAPPING["t5"](**T5)))
    found = {family: make_backbone(family, torch.float64) for family in ("gpt2", "llama", "bloom")}
    return {**found, "t5": Backbone.wrap(t5, mini_tokens())}


def example(row: Any, *, right: Any = None) -> Example:
    text, choices, number = row
    known = (number,) if right is None else right
    return Example({"text": text}, where="row", choices=choices, right=known)


def bound(backbone: Backbone, method: str = "none", **stated: Any) -> BoundTask:
    torch.manual_seed(3)
    usual = {"input": "{text} :", "target": " {reference}", "answer": "choice"}
    task = task_of(TaskId(**{**usual, **stated}))
    readout = task.readout(backbone)
    model = compose(backbone, METHODS[method], readout, inside=task.soft > 0).double()
    with torch.no_grad():
        for parameter in (*model.reparam.parameters(), *model.readout.parameters()):
            parameter.normal_()
    return task.on(model)


def alone(task: BoundTask, text: str, choice: str) -> float:
    """The sum over a choice's tokens from transformers' logits, a token at a time."""
    backbone = task.model.backbone
    tokens = backbone.tokens
    source, target = tokens.source(f"{text} :"), tokens.target(f" {choice}")[:-1]
    model, total = backbone.model, 0.0
    for number, token in enumerate(target):
        with torch.no_grad():
            if backbone.geometry.kind == "encoder-decoder":
                output = model(
                    input_ids=torch.tensor([source]),
                    decoder_input_ids=torch.tensor([[0, *target[:number]]]),
                )
            else:
                output = model(input_ids=torch.tensor([[*source, *target[:number]]]))
        total += float(output.logits[0, -1].log_softmax(-1)[token])
    return total


@pytest.mark.parametrize("family", ["gpt2", "llama", "bloom", "t5"])
def test_a_choice_is_as_likely_as_its_tokens_one_by_one(backbones: Any, family: str) -> None:
    task = bound(backbones[family])
    predictions = task.answers([example(row) for row in ROWS], batch_size=4)
    for (text, choices, _), found in zip(ROWS, predictions, strict=True):
        expected = [alone(task, text, choice) for choice in choices]
        assert found.log_likelihoods == pytest.approx(expected, abs=1e-9)
        best = max(range(len(choices)), key=expected.__getitem__)
        assert (found.chosen, found.answer) == ((best,), choices[best])
        weights = [math.exp(one - max(expected)) for one in expected]
        assert found.shares == pytest.approx([w / sum(weights) for w in weights], abs=1e-9)
        assert found.probability == max(found.shares)
        assert found.input == text


@pytest.mark.parametrize("normalise", ["tokens", "characters"])
def test_lengths(backbones: Any, normalise: str) -> None:
    backbone = backbones["gpt2"]
    plain = bound(backbone).answers([example(row) for row in ROWS])
    divided = bound(backbone, choice={"normalise": normalise}).answers(map(example, ROWS))
    for (_, choices, _), one, other in zip(ROWS, plain, divided, strict=True):
        assert one.log_likelihoods == pytest.approx(other.log_likelihoods, abs=1e-12)
        lengths = [
            len(choice)
            if normalise == "characters"
            else len(backbone.tokens.target(f" {choice}")) - 1
            for choice in choices
        ]
        scores = torch.tensor(other.log_likelihoods, dtype=torch.float64) / torch.tensor(lengths)
        assert other.shares == pytest.approx(scores.softmax(0).tolist(), abs=1e-12)
        assert other.chosen == (int(scores.argmax()),)


@pytest.mark.parametrize(
    ("family", "method"),
    [(f, m) for f in ("gpt2", "llama", "t5") for m in METHODS if (f, m) != ("t5", "infix")],
)
def test_company_moves_nothing(backbones: Any, family: str, method: str) -> None:
    task = bound(backbones[family], method)
    together = task.answers([example(row) for row in ROWS], batch_size=3)
    for row, found in zip(ROWS, together, strict=True):
        (own,) = task.answers([example(row)], batch_size=1)
        assert own.log_likelihoods == pytest.approx(found.log_likelihoods, abs=1e-9)


@pytest.mark.parametrize("normalise", ["none", "characters"])
@pytest.mark.parametrize("family", ["gpt2", "t5"])
def test_training_weighs_choices_against_each_other(
    backbones: Any, family: str, normalise: str
) -> None:
    task = bound(backbones[family], "prefix", choice={"normalise": normalise})
    rights = [(0,), (1,), (0, 2)]
    given = [example(row, right=right) for row, right in zip(ROWS, rights, strict=True)]
    pairs, _ = task.pairs(given)
    assert [pair.answers for pair in pairs] == [1, 1, 1]
    losses = task.model(task.model.lay_out(pairs))
    for loss, one, right in zip(losses, task.answers(given), rights, strict=True):
        assert loss.item() == pytest.approx(
            -math.log(sum(one.shares[number] for number in right)), abs=1e-9
        )
    losses.sum().backward()
    assert all(parameter.grad is not None for parameter in task.model.reparam.parameters())


def test_training_of_the_right_choice_alone(backbones: Any) -> None:
    task = bound(backbones["gpt2"], choice={"objective": "generative"})
    given = [example(ROWS[0]), example(ROWS[2], right=(0, 1))]
    pairs, _ = task.pairs(given)
    losses = task.model(task.model.lay_out(pairs))
    first, other = task.answers(given)
    logs = [first.log_likelihoods[0], *other.log_likelihoods[:2]]
    assert losses.numel() == sum(pair.answers for pair in pairs)
    assert -losses.sum().item() == pytest.approx(sum(logs), abs=1e-9)


def test_all_choices_of_a_row_are_cut_alike(backbones: Any) -> None:
    backbone = make_backbone("gpt2", torch.float64, n_positions=24)
    task = bound(backbone, truncate="text")
    given = Example(
        {"text": "one two three four " * 8}, choices=("a", "b c d e f g"), right=(0,), where="here"
    )
    rows = task.rows(given, labelled=False)
    assert len({tuple(row.pair.source) for row in rows}) == 1
    assert max(row.pair.length for row in rows) == 24
    (told,) = task.answers([given])
    assert told.truncated
    with pytest.raises(DataError, match=r"here: the input has \d+ tokens, but the backbone's"):
        bound(backbone).answers([given])


MULTIPLE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
}


def test_a_head_over_choices_has_transformers_own_loss() -> None:
    torch.manual_seed(0)
    theirs = BertForMultipleChoice(BertConfig(**MULTIPLE)).double().eval()
    backbone = Backbone.wrap(theirs.bert, mini_tokens())
    stated = TaskId(
        input="{text}",
        second="{choice}",
        target="{reference}",
        answer="choice",
        choice={"by": "head"},
        head={"pooler": "frozen", "dropout": 0.0},
    )
    task = task_of(stated)
    head = task.readout(backbone).double()
    task.start(head, backbone)
    with torch.no_grad():
        head.layers[-1].weight.copy_(theirs.classifier.weight)
        head.layers[-1].bias.copy_(theirs.classifier.bias)
    ours = task.on(compose(backbone, HeadOnly(name="head-only"), head).double())
    given = [
        example(("the grey otter", ("swims", "sings so", "it"), 1)),
        example(("it was late", ("a", "b c d", "e"), 2)),
    ]
    pairs, _ = ours.pairs(given)
    losses = ours.model(ours.model.lay_out(pairs))
    for one, loss, told in zip(given, losses, ours.answers(given), strict=True):
        rows = ours.rows(one, labelled=False)
        width = max(len(row.pair.source) for row in rows)
        ids = [row.pair.source + [0] * (width - len(row.pair.source)) for row in rows]
        mask = [[int(i < len(row.pair.source)) for i in range(width)] for row in rows]
        kinds = [[*row.pair.segments, *[0] * (width - len(row.pair.source))] for row in rows]
        output = theirs(
            input_ids=torch.tensor([ids]),
            attention_mask=torch.tensor([mask]),
            token_type_ids=torch.tensor([kinds]),
            labels=torch.tensor([one.right[0]]),
        )
        assert loss.item() == pytest.approx(output.loss.item(), abs=1e-9)
        assert told.shares == pytest.approx(output.logits[0].softmax(-1).tolist(), abs=1e-9)


def test_a_head_judges_each_choice_where_several_may_be_right(backbones: Any) -> None:
    task = bound(
        backbones["gpt2"],
        input="{text} {choice}",
        choice={"by": "head", "select": "several"},
        head={"dropout": 0.0},
        thresholds={"right": 0.3},
    )
    rights = [(0, 2), (), (1,)]
    given = [example(row, right=right) for row, right in zip(ROWS, rights, strict=True)]
    pairs, _ = task.pairs(given)
    losses = task.model(task.model.lay_out(pairs))
    told = task.answers(given)
    assert [pair.answers for pair in pairs] == [3, 2, 3]
    expected = [
        -math.log(share if number in right else 1 - share)
        for one, right in zip(told, rights, strict=True)
        for number, share in enumerate(one.shares)
    ]
    assert sorted(losses.tolist()) == pytest.approx(sorted(expected), abs=1e-9)
    for one, (_, choices, _) in zip(told, ROWS, strict=True):
        assert one.chosen == tuple(i for i, share in enumerate(one.shares) if share >= 0.3)
        assert one.answer == tuple(choices[i] for i in one.chosen)
        assert one.probability == tuple(one.shares[i] for i in one.chosen)


WORDS = {"words": {"right": ["yes", "true"], "wrong": ["no"]}}


@pytest.mark.parametrize("family", ["gpt2", "bert", "t5"])
def test_label_words_judge_each_choice_as_a_label(
    backbones: Any, masked: Backbone, family: str
) -> None:
    backbone = backbones.get(family, masked)
    text = "{text} {choice} : {mask}" if family == "bert" else "{text} {choice} :"
    task = bound(backbone, input=text, verbalizer=WORDS)
    judged = bound(
        backbone, input=text, verbalizer=WORDS, answer="label", labels=("right", "wrong")
    )
    given = [example(row) for row in ROWS]
    for one, (asked, choices, _) in zip(task.answers(given, batch_size=3), ROWS, strict=True):
        labels = judged.answers([Example({"text": asked, "choice": c}) for c in choices])
        expected = [label.probabilities["right"] for label in labels]
        assert one.shares == pytest.approx(expected, abs=1e-5)
        assert one.chosen == (max(range(len(choices)), key=one.shares.__getitem__),)
    pairs, _ = task.pairs(given)
    assert [pair.labels for pair in pairs[:3]] == [(0,), (1,), (1,)]
    assert task.model(task.model.lay_out(pairs)).numel() == 8


def test_choices_are_answered_beside_other_tasks(backbones: Any) -> None:
    backbone = backbones["gpt2"]
    head = {"choice": {"by": "head"}, "input": "{text} {choice}"}
    tasks = [
        bound(backbone, "prefix"),
        bound(backbone, "soft", choice={"normalise": "tokens"}),
        bound(backbone, "prefix", **head),
        bound(backbone, "none", input="{text} {choice} :", verbalizer=WORDS),
        bound(backbone, "soft", input="{text}", answer="label", labels=("a", "b")),
    ]
    requests = [Request(task, example(row)) for row in ROWS for task in tasks]
    together = answer_together(requests, batch_size=5)
    for request, found in zip(requests, together, strict=True):
        (own,) = request.task.answers([request.example], batch_size=1)
        assert (found.answer, found.chosen) == (own.answer, own.chosen)
        assert found.shares == pytest.approx(own.shares, abs=1e-9)
        assert found.probabilities == pytest.approx(own.probabilities, abs=1e-9)


@pytest.mark.parametrize("way", ["likelihood", "head", "words"])
def test_it_learns_which_choice_is_right(backbones: Any, way: str) -> None:
    """The right choice has a mark of its own; batches in parts have the same losses."""
    ways: dict[str, Any] = {
        "likelihood": {},
        "head": {"input": "{text} {choice}", "choice": {"by": "head"}, "head": {"dropout": 0.0}},
        "words": {"input": "{text} {choice} :", "verbalizer": WORDS},
    }
    given = [
        example((f"the {thing}", tuple(f"{m} it" for m in marks), marks.index("good")))
        for thing in ("otter", "toad", "bird", "tree")
        for marks in (("good", "bad", "old"), ("bad", "good"))
    ]

    def losses(batch: int, accumulation: int) -> list[float]:
        task = bound(backbones["gpt2"], "prefix", **ways[way])
        pairs, _ = task.pairs(given)
        spec = TrainingSpec(
            steps=15,
            batch_size=batch,
            accumulation=accumulation,
            learning_rate=0.05,
            best_by=None,
        )
        return [step["loss"] for step in train(task.model, pairs, spec).steps]

    if way != "words":  # whose rows are choices, of which an epoch has another number
        whole = losses(8, 1)
        assert losses(4, 2) == pytest.approx(whole, rel=1e-6)
    else:
        whole = losses(20, 1)
    assert whole[-1] < 0.7 * whole[0]


def test_what_is_refused(backbones: Any, masked: Backbone) -> None:
    with pytest.raises(BackboneError, match=r"is an encoder, which has no likelihood of a text"):
        bound(masked)
    task = bound(backbones["gpt2"])
    with pytest.raises(DataError, match="here: has no choices"):
        task.answers([Example({"text": "x"}, where="here")])
    with pytest.raises(DataError, match=r"here: has no right choice to learn from$"):
        task.pairs([Example({"text": "x"}, where="here", choices=("a", "b"))])
    with pytest.raises(DataError, match=r"to learn from; give task\.choice\.select: several"):
        task.pairs([Example({"text": "x"}, where="here", choices=("a", "b"), right=())])
    with pytest.raises(DataError, match="here: give text, choices by name, as JSON"):
        task.task.example("x", "here")
    with pytest.raises(DataError, match="here: field 'choices' is missing"):
        task.task.example({"text": "x"}, "here")
    with pytest.raises(DataError, match="here, field 'text': is null"):
        task.task.example({"text": None, "choices": ["a", "b"]}, "here")
    made = task.task.example({"text": "x", "choices": ["a", "b"]}, "here")
    assert made.choices == ("a", "b")


def test_an_encoder_can_judge_by_head_and_by_words(tmp_path: Any, masked: Backbone) -> None:
    stated = {"input": "{text}", "second": "{choice}", "choice": {"by": "head"}}
    (told,) = bound(masked, **stated).answers([example(ROWS[0])])
    assert sum(told.shares) == pytest.approx(1)
    assert isinstance(masked.model, BertForMaskedLM)


def test_a_prompts_loss_on_its_own_tokens_counts_every_row(backbones: Any) -> None:
    """Rows beside a pair are rows of the batch, of which each has the prompt's own loss (CPT)."""
    task = bound(backbones["gpt2"], "prefix")
    pairs, _ = task.pairs([example(row) for row in ROWS])
    layout = task.model.lay_out(pairs)
    assert layout.rows == sum(len(pair.rows) for pair in pairs) == 8
    assert_close(
        task.model(layout), torch.cat([task.model(task.model.lay_out([p])) for p in pairs])
    )


def test_choices_of_one_row_are_read_behind_one_passage(backbones: Any, monkeypatch: Any) -> None:
    """Rows that begin alike come into one batch, and what they begin with is read once."""
    backbone = backbones["gpt2"]
    task = bound(backbone, "prefix", input="{text} {choice} :", verbalizer=WORDS)
    passages = [
        f"{word} and all that is known of it is told in these many words of a text"
        for word in "abc"
    ]
    rows = [
        (f"{passage} {end}", ["yes it is so", "no"], 0) for end in "uvwxyz" for passage in passages
    ]
    given = [example(row) for row in rows]
    alone = [task.answers([one], batch_size=1)[0] for one in given]
    read = []
    run = type(backbone).logits

    def counted(self: Backbone, call: Any, reading: Any = None) -> Any:
        read.append(int(call.layout.attention_mask.sum()))
        return run(self, call, reading)

    monkeypatch.setattr(type(backbone), "logits", counted)
    together = task.answers(given, batch_size=12)
    tokens = sum(pair.length for one in given for row in task.rows(one) for pair in row.pair.rows)
    assert sum(read) < tokens / 2
    for one, own in zip(together, alone, strict=True):
        assert one.shares == pytest.approx(own.shares, abs=1e-9)
