"""What PEFT gets wrong where a head answers, and what happens here instead.

Each test holds PEFT to its mistake, too: it fails when PEFT mends it, and then loses its reason.
Those of families stand in `test_peft_mistakes.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoModelForSequenceClassification
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from compat.with_heads import BART, ENCODER, LENGTH, WARNINGS, adapted, save_base
from conftest import VOCABULARY, assert_close, mini_tokens
from foreword.axes.readout import Head, SequenceHead, SpanHead, TokenHead
from foreword.backbone import Backbone, Call, load_backbone
from foreword.backbone.layout import Pair
from foreword.errors import UserError
from foreword.methods import PrefixTuning, PromptTuning, axes
from foreword.tuned import TunedModel
from foreword.tuned.compose import compose

pytestmark = pytest.mark.filterwarnings(*WARNINGS)
ROWS = ([5, 81, 300, 27, 9, 1200, 77], [40, 7, 300])
"""One has four tokens more than the other."""
PAD = 3


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base("bert", tmp_path_factory.mktemp("bert") / "base")


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base("gpt2", tmp_path_factory.mktemp("gpt2") / "base", pad_token_id=PAD)


def ours(base: Path, kind: str, head: type[Head], outputs: int = 3, **options: Any) -> TunedModel:
    """A prompt and a head, random and loud."""
    backbone = load_backbone(str(base))
    table = axes.Table(std=1.0)
    method = (
        PrefixTuning(name="prefix-tuning", length=LENGTH, reparameterization=table, **options)
        if kind == "prefix"
        else PromptTuning(
            name="prompt-tuning",
            length=LENGTH,
            reparameterization=table,
            init=axes.UniformInit(),
            **options,
        )
    )
    readout = head(backbone.hidden_width, outputs, dropout=0.0)
    torch.nn.init.normal_(readout.layers[-1].weight)
    return compose(backbone, method, readout).eval()


def padded(rows: Any, side: str) -> dict[str, torch.Tensor]:
    width = max(map(len, rows))
    fill = [[PAD] * (width - len(row)) for row in rows]
    left = side == "left"
    ids = [f + row if left else row + f for f, row in zip(fill, rows, strict=True)]
    mask = [
        [0] * len(f) + [1] * len(row) if left else [1] * len(row) + [0] * len(f)
        for f, row in zip(fill, rows, strict=True)
    ]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


def bart() -> Any:
    config = CONFIG_MAPPING["bart"](
        vocab_size=VOCABULARY,
        eos_token_id=2,
        pad_token_id=1,
        encoder_layers=2,
        decoder_layers=2,
        **BART,
    )
    return AutoModelForSequenceClassification.from_config(config)


@pytest.mark.parametrize(
    ("kind", "error"),
    [("PrefixTuningConfig", AttributeError), ("PromptTuningConfig", NotImplementedError)],
)
def test_3_bart_sequence_classification_is_refused_and_does_not_crash(kind, error) -> None:
    config = getattr(peft, kind)(task_type="SEQ_CLS", num_virtual_tokens=LENGTH)
    theirs = peft.get_peft_model(bart(), config).eval()
    with pytest.raises(error):
        theirs(input_ids=torch.tensor([[5, 6, 2]]), attention_mask=torch.ones(1, 3))

    config = CONFIG_MAPPING["bart"](
        vocab_size=VOCABULARY, encoder_layers=2, decoder_layers=2, **BART
    )
    backbone = Backbone.wrap(AutoModelForSeq2SeqLM.from_config(config), mini_tokens())
    with pytest.raises(UserError, match="encoder-decoder, on which a head has no place here; let"):
        compose(backbone, PrefixTuning(name="prefix-tuning", length=LENGTH), SequenceHead(32, 3))


def test_3_token_classification_is_trained_with_soft_prompts(bert) -> None:
    theirs = adapted(bert, "TOKEN_CLS", "prompt")
    given = padded(ROWS[:1], "right")
    with pytest.raises(ValueError, match="batch_size"):
        theirs(**given, labels=torch.zeros_like(given["input_ids"]))

    model = ours(bert, "prompt", TokenHead)
    pairs = [Pair(row, marks=tuple(range(len(row))), labels=(1,) * len(row)) for row in ROWS]
    losses = model(model.lay_out(pairs))
    assert losses.shape == (sum(map(len, ROWS)),)
    losses.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    said = model.read(model.lay_out(pairs))
    assert [len(row) for row in said] == [len(row) for row in ROWS], "none for virtual tokens"


def test_4_positions_of_a_span_count_the_texts_own_tokens(bert) -> None:
    theirs = adapted(bert, "QUESTION_ANS", "prompt", labels=2)
    given = padded(ROWS[:1], "right")
    start, end = 2, 4
    with torch.no_grad():
        output = theirs(
            **given, start_positions=torch.tensor([start]), end_positions=torch.tensor([end])
        )
    logits = output.start_logits, output.end_logits
    assert all(side.shape[1] == LENGTH + len(ROWS[0]) for side in logits), "virtual columns stay"
    unshifted = [
        -side.log_softmax(-1)[0, at] for side, at in zip(logits, (start, end), strict=True)
    ]
    assert_close(output.loss, torch.stack(unshifted).mean())

    model = ours(bert, "prompt", SpanHead, 2)
    pair = Pair(ROWS[0], marks=tuple(range(len(ROWS[0]))), labels=(start, end))
    layout = model.lay_out([pair])
    (said,) = model.read(layout)
    assert said.shape == (2, len(ROWS[0])), "the text's tokens alone"
    with torch.no_grad():
        assert_close(model(layout), -said[[0, 1], [start, end]])
        states = model.backbone.hidden(Call(layout, model.prompt()))[0, LENGTH:]
        at = model.readout.layers(states)[start, 0] - model.readout.layers(states)[:, 0].logsumexp(
            0
        )
    assert_close(said[0, start], at)


def test_4_a_model_knows_which_text_is_the_question(bert) -> None:
    """PEFT's question answering takes token_type_ids and drops them."""
    theirs = adapted(bert, "QUESTION_ANS", "prefix", labels=2)
    given = padded(ROWS[:1], "right")
    apart = torch.tensor([[0, 0, 0, 1, 1, 1, 1]])
    with torch.no_grad():
        plain, told = theirs(**given), theirs(**given, token_type_ids=apart)
    assert torch.equal(plain.start_logits, told.start_logits)

    model = ours(bert, "prefix", SpanHead, 2)
    marks = tuple(range(len(ROWS[0])))
    plain, told = (
        model.read(model.lay_out([Pair(ROWS[0], marks=marks, segments=segments)]))[0]
        for segments in ((), tuple(apart[0].tolist()))
    )
    assert (plain - told).abs().max() > 0.01


def test_5_a_decoder_reads_the_last_real_token_under_right_padding(gpt2) -> None:
    theirs = adapted(gpt2, "SEQ_CLS", "prompt")
    with torch.no_grad():
        alone = theirs(**padded(ROWS[1:], "right")).logits[0]
        together = theirs(**padded(ROWS, "right")).logits[1]
        given = padded(ROWS, "right")
        prompts = theirs.get_prompt(2)
        states = theirs.base_model.transformer(
            inputs_embeds=torch.cat([prompts, theirs.word_embeddings(given["input_ids"])], dim=1),
            attention_mask=torch.cat([torch.ones(2, LENGTH), given["attention_mask"]], dim=1),
        ).last_hidden_state
        of_a_pad = theirs.base_model.score(states[1, -1])
    assert given["attention_mask"][1, -1] == 0
    assert_close(together, of_a_pad)
    assert (alone - together).abs().max() > 0.01

    model = ours(gpt2, "prompt", SequenceHead)
    assert_alone_as_together(model, [Pair(row, marks=(len(row) - 1,)) for row in ROWS])


def test_6_left_padding_moves_no_answer(gpt2) -> None:
    theirs = adapted(gpt2, "SEQ_CLS", "prompt")
    with torch.no_grad():
        alone = theirs(**padded(ROWS[1:], "left")).logits[0]
        together = theirs(**padded(ROWS, "left")).logits[1]
    assert (alone - together).abs().max() > 0.01

    model = ours(gpt2, "prompt", SequenceHead)
    pairs = [Pair(row, marks=(len(row) - 1,)) for row in ROWS]
    for side in ("left", "right"):
        layout = model.placement.layout(
            [p.source for p in pairs], side=side, pad_id=PAD, marks=[p.marks for p in pairs]
        )
        assert_equal_rows(model, model.read(layout), pairs)


@pytest.mark.parametrize("kind", ["prefix", "prompt"])
def test_6_padding_moves_no_answer_of_an_encoder(bert, kind) -> None:
    model = ours(bert, kind, SequenceHead)
    assert_alone_as_together(model, [Pair(row, marks=(0,)) for row in ROWS])


def test_6_the_texts_first_token_answers_and_no_virtual_one(bert) -> None:
    """PEFT's encoder heads read the first column, where a soft prompt's first token stands."""
    theirs = adapted(bert, "SEQ_CLS", "prompt")
    given = padded(ROWS[:1], "right")
    with torch.no_grad():
        inputs = torch.cat(
            [theirs.get_prompt(1), theirs.word_embeddings(given["input_ids"])], dim=1
        )
        body = theirs.base_model.bert(inputs_embeds=inputs)
        of_virtual = theirs.base_model.classifier(body.pooler_output[0])
        pooled = theirs.base_model.bert.pooler(body.last_hidden_state[:, LENGTH:])
        of_text = theirs.base_model.classifier(pooled[0])
        found = theirs(**given).logits[0]
    assert_close(found, of_virtual)
    assert (found - of_text).abs().max() > 0.01

    model = ours(bert, "prompt", SequenceHead)
    layout = model.lay_out([Pair(ROWS[0], marks=(0,))])
    states = model.backbone.hidden(Call(layout, model.prompt()))
    assert_close(model.read(layout)[0], model.readout.logits(states[0, LENGTH]).softmax(-1))


@pytest.mark.parametrize("kind", ["prefix", "prompt"])
def test_10_a_prompt_takes_none_of_an_encoders_positions(bert, kind) -> None:
    context = ENCODER["max_position_embeddings"]
    long = [5 + i for i in range(context)]
    given = padded([long], "right")
    theirs = adapted(bert, "SEQ_CLS", kind)
    with pytest.raises((IndexError, RuntimeError)):
        theirs(**given)
    theirs(**padded([long[LENGTH:]], "right"))

    model = ours(bert, kind, SequenceHead)
    assert model.room(0) == context
    assert model.placement.positions == "keep"
    (said,) = model.read(model.lay_out([Pair(long, marks=(0,))]))
    assert said.isfinite().all()
    assert ours(bert, kind, SequenceHead, positions="shift").room(0) == context - LENGTH


def assert_alone_as_together(model: TunedModel, pairs: list[Pair]) -> None:
    assert_equal_rows(model, model.read(model.lay_out(pairs)), pairs)


def assert_equal_rows(model: TunedModel, found: list[torch.Tensor], pairs: list[Pair]) -> None:
    for pair, row in zip(pairs, found, strict=True):
        assert_close(row, model.read(model.lay_out([pair]))[0])
