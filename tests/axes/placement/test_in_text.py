"""Virtual tokens among real words: against inputs of plain models put together by hand."""

from __future__ import annotations

from functools import lru_cache

import pytest
import torch
from torch import Tensor

from conftest import VOCABULARY, assert_close, mini_tokens
from families.by_hand import ExactFloat64
from families.catalogue import plain_model
from foreword.axes.placement import InText
from foreword.axes.readout import Generation, SequenceHead
from foreword.backbone import Backbone, Decoding
from foreword.backbone.layout import Pair
from foreword.data import Example
from foreword.errors import UserError
from foreword.methods import PromptTuning, PTuning
from foreword.methods.embedding_only import EmbeddingOnly
from foreword.tasks import TextGeneration, Writing, decode_rows
from foreword.tasks.text import Templates
from foreword.tuned import TunedModel
from foreword.tuned.compose import compose

DECODERS = ("gpt2", "llama", "opt", "bloom", "mistral")
FAMILIES = (*DECODERS, "t5")
TEMPLATE = "{soft:2} {record} means{soft} in words:{soft:2}"
RECORDS = ("a red bird", "so", "name : Aromi | type : a very small pub in the north")
SOFT = 5


@lru_cache
def backbone(family: str) -> Backbone:
    return Backbone.wrap(plain_model(family, vocab_size=VOCABULARY), mini_tokens())


def tuned(family: str, readout: Generation | SequenceHead | None = None) -> TunedModel:
    on = backbone(family)
    method = PromptTuning(name="prompt-tuning", length=SOFT)
    model = compose(on, method, readout or Generation(), inside=True)
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(SOFT, on.geometry.width, dtype=torch.float64, generator=generator)
    return model.with_rows(rows).double()


def examples() -> list[Example]:
    return [Example({"record": text}, references=(f" it is {text[:5]}",)) for text in RECORDS]


class ByHand:
    """Transformers' own model, given embeddings."""

    def __init__(self, family: str, soft: Tensor) -> None:
        self.plain, self.soft = plain_model(family, vocab_size=VOCABULARY), soft
        self.plain.set_attn_implementation("eager")
        self.begin = backbone(family).begin
        self.size = backbone(family).geometry.vocabulary

    def embedded(self, ids: list[int]) -> Tensor:
        table = self.plain.get_input_embeddings()
        rows = [self.soft[i - self.size] if i >= self.size else table(torch.tensor(i)) for i in ids]
        return torch.stack(rows)[None]

    def logits(self, ids: list[int], written: list[int]) -> Tensor:
        """After an input, of each written token and of what follows: `[len(written) + 1, V]`."""
        if self.begin is None:
            found = self.plain(inputs_embeds=self.embedded([*ids, *written])).logits[0]
        else:
            begun = torch.tensor([[*self.begin, *written]])
            whole = self.embedded(ids)
            found = self.plain(inputs_embeds=whole, decoder_input_ids=begun).logits[0]
        return found[-len(written) - 1 :]

    def greedy(self, ids: list[int], most: int, end: int) -> list[int]:
        written: list[int] = []
        while len(written) < most:
            token = int(self.logits(ids, written)[-1].argmax())
            if token == end:
                break
            written.append(token)
        return written


def decoded(
    model: TunedModel, sources: list[list[int]], how: Decoding, *, batch_size: int
) -> list[str]:
    return decode_rows([Writing(model, ids, how) for ids in sources], batch_size=batch_size)


def sources(model: TunedModel) -> list[list[int]]:
    task = Templates.of(TEMPLATE)
    return [task.source(model.backbone.tokens, example)[1] for example in examples()]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_text_has_the_virtual_tokens_and_nothing_stands_before_it(family: str) -> None:
    model = tuned(family)
    assert isinstance(model.placement, InText)
    size, words = model.backbone.geometry.vocabulary, mini_tokens()
    for ids, text in zip(sources(model), RECORDS, strict=True):
        pieces = [words.plain(part) for part in (f" {text} means", " in words:")]
        assert ids == [size, size + 1, *pieces[0], size + 2, *pieces[1], size + 3, size + 4]
        layout = model.arrange([ids])
        read = layout.source or layout
        assert read.input_ids.tolist() == [ids]
        assert (read.virtual, int(read.position_ids[0, 0])) == (0, 0)


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_are_a_greedy_decoding_by_hand(family: str) -> None:
    """In one batch, rows of other lengths beside them."""
    model = tuned(family)
    how = Decoding(max_new_tokens=6)
    with ExactFloat64(), torch.no_grad():
        answers = decoded(model, sources(model), how, batch_size=8)
        hand = ByHand(family, model.rows())
        for ids, answer in zip(sources(model), answers, strict=True):
            written = hand.greedy(ids, 6, mini_tokens().eos_id)
            assert answer == mini_tokens().text(written).strip()


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradient_of_a_text(family: str) -> None:
    model = tuned(family)
    soft = model.rows().detach().clone().requires_grad_()
    model.reparam.requires_grad_()
    pairs = [
        row.pair
        for example in examples()
        for row in TextGeneration(Templates.of(TEMPLATE)).on(model).rows(example)
    ]
    with ExactFloat64():
        losses = model(model.lay_out(pairs))
        losses.sum().backward()
        hand, expected = ByHand(family, soft), []
        for pair in pairs:
            logs = hand.logits(pair.source, pair.target[:-1]).log_softmax(-1)
            expected += [-logs[i, token] for i, token in enumerate(pair.target)]
        torch.stack(expected).sum().backward()
    assert_close(losses.detach(), torch.stack(expected).detach())
    (table,) = model.reparam.parameters()
    assert_close(table.grad.double(), soft.grad)
    assert (soft.grad.abs().sum(1) > 0).all()
    assert all(parameter.grad is None for parameter in model.backbone.model.parameters())


@pytest.mark.parametrize("family", ["bert", "roberta", "llama"])
def test_a_head_reads_states_that_saw_the_virtual_tokens(family: str) -> None:
    torch.manual_seed(0)
    on = backbone(family)
    readout = SequenceHead(on.hidden_width, 3, dropout=0.0).double()
    model = tuned(family, readout)
    ids = sources(model)
    last = family == "llama"
    pairs = [Pair(row, marks=(len(row) - 1 if last else 0,)) for row in ids]
    with ExactFloat64(), torch.no_grad():
        said = model.read(model.lay_out(pairs))
        hand = ByHand(family, model.rows())
        for row, found in zip(ids, said, strict=True):
            given = hand.embedded(row)
            body = hand.plain.base_model
            states = body(inputs_embeds=given, attention_mask=torch.ones(given.shape[:2]).long())
            state = states.last_hidden_state[0, -1 if last else 0]
            assert_close(found, model.readout.layers(state).softmax(-1))


def test_repetitions_of_the_prompt_do_not_count_as_words() -> None:
    """Ids of virtual tokens lie above the vocabulary and never reach a penalty on repetition."""
    model = tuned("gpt2")
    how = Decoding(max_new_tokens=4, repetition_penalty=5.0, no_repeat_ngram_size=2)
    (answer,) = decoded(model, sources(model)[:1], how, batch_size=1)
    together = decoded(model, sources(model), how, batch_size=3)
    assert together[0] == answer


def test_the_backbone_alone_reads_the_same_words() -> None:
    task = Templates.of(TEMPLATE)
    bare = task.without_soft()
    assert bare.soft == 0
    model = tuned("gpt2").bare()
    (text, ids) = bare.source(model.backbone.tokens, examples()[0])
    assert text == "a red bird means in words:"
    assert ids == mini_tokens().plain(text)
    decoded(model, [ids], Decoding(max_new_tokens=2), batch_size=1)


@pytest.mark.parametrize("length", [SOFT, 70])
def test_the_context_holds_what_stands_in_the_text(length: int) -> None:
    """Virtual tokens count once: as tokens of the input."""
    on = Backbone.wrap(plain_model("gpt2", vocab_size=VOCABULARY, n_positions=64), mini_tokens())
    method = PTuning(name="p-tuning", length=length)
    if length > 64:
        with pytest.raises(UserError, match="70 virtual tokens leave no room in the 64"):
            compose(on, method, inside=True)
        return
    model = compose(on, method, inside=True)
    assert model.room(4) == 60
    task = TextGeneration(Templates.of("{soft:5} {record:cut}")).on(model)
    (row,) = task.rows(Example({"record": "word " * 99}), labelled=False, reserve=4)
    assert row.cut > 0
    assert 58 <= len(row.pair.source) <= 60
    decoded(model, [row.pair.source], Decoding(max_new_tokens=4), batch_size=1)


def test_sites_and_infix_have_no_place_beside_slots() -> None:
    method = PTuning(name="p-tuning", length=SOFT, sites=("decoder",))
    with pytest.raises(UserError, match=r"method\.sites: decoder, .* slots of task\.input"):
        compose(backbone("t5"), method, inside=True)
    infix = EmbeddingOnly(name="embedding-only", length=SOFT, placement="infix")
    with pytest.raises(UserError, match=r"method\.placement: 'infix', .* slots of task\.input"):
        compose(backbone("gpt2"), infix, inside=True)
