"""Label words: scores against forward passes of transformers' own models, written word by word.

The references read one row without padding, from embeddings that are put together by hand, and one
more token of one word in each pass. They use no layout, batch, injection or readout.
"""

from __future__ import annotations

import copy
from functools import lru_cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import BertConfig, BertLMHeadModel, PreTrainedModel

from conftest import VOCABULARY, assert_close, mini_tokens
from families.by_hand import ExactFloat64
from families.catalogue import plain_model
from foreword.axes.readout import Verbalizer
from foreword.backbone import Backbone, Tokens
from foreword.backbone.layout import Layout
from foreword.data import Example
from foreword.errors import BackboneError, DataError, TemplateError
from foreword.evaluation.calibration import calibrate
from foreword.methods import HardPrompt, PTuning, axes
from foreword.tasks import Cloze, MissingWord
from foreword.tasks.text import Templates
from foreword.tuned import TunedModel
from foreword.tuned.compose import compose

ENCODERS = ("bert", "roberta", "albert", "distilbert", "electra", "modernbert")
DECODERS = ("gpt2", "llama", "opt", "bloom", "mistral")
OTHERS = ("t5", "bart")
WORDS = (("good", "very fine"), ("bad",), ("not at all good", "awful"))
LABELS = ("yes", "no", "not")
TEXTS = ("a film", "it rained all day, and then it rained again", "so")
SOFT = 4


@lru_cache
def tokens() -> Tokens:
    """The bundled ones with a mask token, and T5's first sentinel."""
    made = copy.deepcopy(mini_tokens().tokenizer)
    made.add_special_tokens({"mask_token": "[MASK]"})
    made.add_tokens(["<extra_id_0>"], special_tokens=True)
    return Tokens(made)


def plain(family: str, **overrides: Any) -> PreTrainedModel:
    return plain_model(family, vocab_size=VOCABULARY + 2, **overrides)


@lru_cache
def backbone(family: str) -> Backbone:
    return Backbone.wrap(plain(family), tokens() if family != "bart" else mini_tokens())


def pattern(family: str) -> str:
    """With a mask where one is read; words after it where it may stand within."""
    end = "" if family == "bart" else " {mask}" if family in DECODERS else " {mask} ."
    return f"{{soft:2}} {{text:cut}} It {{soft}} was{{soft}}{end}"


def cloze(family: str, words: Any = WORDS, **options: Any) -> Cloze:
    text = Templates.of(options.pop("pattern", pattern(family)))
    return Cloze(text, LABELS[: len(words)], words, **options)


def tuned(on: Backbone, task: Cloze | MissingWord) -> TunedModel:
    """With random virtual tokens in the slots."""
    torch.manual_seed(0)
    soft = task.soft
    if not soft:
        return compose(on, HardPrompt(name="hard-prompt"), task.readout(on)).double()
    method = PTuning(name="p-tuning", length=soft, reparameterization=axes.ReluMLP())
    model = compose(on, method, task.readout(on), inside=True).double()
    rows = torch.randn(soft, on.geometry.width, dtype=torch.float64)
    return model.with_rows(rows)


class ByHand:
    """Logarithms of probabilities from transformers' own model."""

    def __init__(self, family: str, model: TunedModel, soft: Tensor | None = None) -> None:
        self.family, self.plain = family, plain(family)
        self.plain.set_attn_implementation("eager")
        self.vocabulary = model.backbone.geometry.vocabulary
        self.soft = model.rows() if soft is None else soft
        self.begin = model.backbone.begin

    def embedded(self, ids: list[int]) -> Tensor:
        table: nn.Module = self.plain.get_input_embeddings()
        return torch.stack(
            [
                self.soft[i - self.vocabulary] if i >= self.vocabulary else table(torch.tensor(i))
                for i in ids
            ]
        )

    def at(self, ids: list[int], where: list[int]) -> Tensor:
        """What an encoder says at some places: `[n, vocabulary]`."""
        given = self.embedded(ids)[None]
        mask = torch.ones(given.shape[:2], dtype=torch.long)
        logits = self.plain(inputs_embeds=given, attention_mask=mask).logits[0]
        return logits[where].log_softmax(-1)

    def next(self, ids: list[int], written: list[int]) -> Tensor:
        """What comes after an input and a part of its answer: `[vocabulary]`."""
        if self.begin is not None:
            given = {"decoder_input_ids": torch.tensor([[*self.begin, *written]])}
            whole = self.embedded(ids)
        else:
            given, whole = {}, self.embedded([*ids, *written])
        return self.plain(inputs_embeds=whole[None], **given).logits[0, -1].log_softmax(-1)

    def word(self, ids: list[int], word: list[int], masks: list[int], order: str) -> Tensor:
        """The logarithm of a word's probability."""
        if not masks:
            before = [VOCABULARY + 1] if self.family == "t5" else []
            return sum(
                (self.next(ids, [*before, *word[:i]])[token] for i, token in enumerate(word)),
                start=torch.zeros(()).double(),
            )
        if order == "joint":
            said = self.at(ids, masks)
            return sum(said[i, token] for i, token in enumerate(word))
        ids, left, total = list(ids), dict(zip(masks, word, strict=True)), 0.0
        while left:
            sure = {at: self.at(ids, [at])[0, token] for at, token in left.items()}
            best = max(sure, key=lambda at: float(sure[at]))
            total, ids[best] = total + sure[best], left.pop(best)
        return total


def examples() -> list[Example]:
    return [Example({"text": text}, label=LABELS[i % 2]) for i, text in enumerate(TEXTS)]


def windows_of(model: TunedModel, task: Cloze, *, labelled: bool = False) -> list[Any]:
    return [
        window for example in examples() for window in task.rows(model, example, labelled=labelled)
    ]


def word_tokens(task: Cloze, model: TunedModel) -> list[list[int]]:
    return [list(word) for label in task.tokens(model.backbone) for word in label]


CASES = [
    *((family, order) for family in ("bert", "roberta") for order in ("joint", "max-first")),
    *((family, "max-first") for family in ENCODERS[2:]),
    *((family, "joint") for family in (*DECODERS, *OTHERS)),
]


@pytest.mark.parametrize(("family", "order"), CASES)
def test_words_are_as_probable_as_the_plain_model_says(family: str, order: str) -> None:
    """All rows in one batch, with padding, against each alone."""
    task = cloze(family, order=order)
    model = tuned(backbone(family), task)
    windows = windows_of(model, task)
    with ExactFloat64(), torch.no_grad():
        read = model.read(model.lay_out([window.pair for window in windows]))
        hand = ByHand(family, model)
        for window, said in zip(windows, read, strict=True):
            assert said.shape == (5,)
            masks = list(window.pair.marks)
            for word, found in zip(word_tokens(task, model), said, strict=True):
                if family in ENCODERS and len(word) != len(masks):
                    assert found.isnan()
                    continue
                assert_close(found, hand.word(window.pair.source, word, masks, order))


@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2", "llama", "t5", "bart"])
def test_loss_and_gradients_are_those_of_the_definition(family: str) -> None:
    """Every virtual token learns, by the definition's gradient, and nothing of the backbone."""
    task = cloze(family)
    model = tuned(backbone(family), task)
    soft = model.rows().detach().clone().requires_grad_()
    for parameter in model.reparam.parameters():
        parameter.requires_grad_()
    windows = windows_of(model, task, labelled=True)
    with ExactFloat64():
        losses = model(model.lay_out([window.pair for window in windows]))
        losses.sum().backward()
        hand = ByHand(family, model, soft)
        expected = []
        for window in windows:
            masks = list(window.pair.marks)
            if masks:
                said = hand.at(window.pair.source, masks)
                scored = [
                    sum(said[i, token] for i, token in enumerate(word))
                    for word in word_tokens(task, model)
                ]
            else:
                scored = [
                    hand.word(window.pair.source, word, [], "joint")
                    for word in word_tokens(task, model)
                ]
            labels = torch.stack(
                [(scored[0] + scored[1]) / 2, scored[2], (scored[3] + scored[4]) / 2]
            )
            expected.append(-labels.log_softmax(0)[window.pair.labels[0]])
        torch.stack(expected).sum().backward()
    assert_close(losses.detach(), torch.stack(expected).detach())
    (table,) = model.reparam.parameters()
    assert_close(table.grad.to(soft.dtype), soft.grad)
    assert (soft.grad.abs().sum(1) > 0).all()
    for name, parameter in model.backbone.model.named_parameters():
        assert parameter.grad is None, name


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5"])
def test_other_words_and_labels_move_no_word(family: str) -> None:
    """A word is as probable beside others as it is alone."""
    task = cloze(family)
    model = tuned(backbone(family), task)
    windows = windows_of(model, task)
    together = model.read(model.lay_out([window.pair for window in windows]))
    flat = word_tokens(task, model)
    for number, word in enumerate(flat):
        alone = Verbalizer(
            [[word]], masked=model.readout.masked, before=model.readout.before
        ).double()
        for window, said in zip(windows, together, strict=True):
            layout = model.lay_out([window.pair])
            with torch.no_grad():
                (found,) = alone.read(model.backbone, model.call(layout))
            if said[number].isnan():
                assert found.isnan().all()
            else:
                assert_close(found[0], said[number])


def test_single_words_are_a_softmax_over_mean_logits() -> None:
    """PET's definition over logits (Schick & Schütze 2021a, section 3.1), without any logarithm."""
    words = ((".", ","), ("!",), ("?",))
    task = cloze("bert", words, pattern="{text}{mask} {soft}")
    model = tuned(backbone("bert"), task)
    ids = [[word[0] for word in label] for label in task.tokens(model.backbone)]
    assert all(len(word) == 1 for label in task.tokens(model.backbone) for word in label)
    said = task.on(model).answers(examples())
    hand = ByHand("bert", model)
    for answered, window in zip(said, windows_of(model, task), strict=True):
        given = hand.embedded(window.pair.source)[None]
        with torch.no_grad():
            logits = hand.plain(inputs_embeds=given).logits[0, window.pair.marks[0]]
        expected = torch.stack([logits[of].mean() for of in ids]).softmax(0)
        shares = [answered.probabilities[label] for label in LABELS]
        found = torch.tensor(shares, dtype=torch.float64)
        assert_close(found, expected)
        assert answered.answer == LABELS[int(expected.argmax())]


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5"])
def test_answers_depend_on_no_company(family: str) -> None:
    task = cloze(family, order="max-first")
    model = tuned(backbone(family), task)
    together = task.on(model).answers(examples(), batch_size=32)
    for batch_size in (1, 2):
        apart = task.on(model).answers(examples(), batch_size=batch_size)
        for one, other in zip(together, apart, strict=True):
            assert one.answer == other.answer
            for label in LABELS:
                assert one.probabilities[label] == pytest.approx(
                    other.probabilities[label], abs=1e-12
                )


@pytest.mark.parametrize("family", ["bert", "gpt2"])
@pytest.mark.parametrize("real", [False, True])
def test_calibration_divides_by_what_is_said_of_nothing(family: str, real: bool) -> None:
    """Zhao et al. 2021: probabilities over the prior's, brought to a sum of one again."""
    raw_task, task = cloze(family), cloze(family, calibrated=True)
    raw, model = tuned(backbone(family), raw_task), tuned(backbone(family), task)
    inputs = examples() if real else [Example({"text": text}) for text in ("N/A", "")]
    uncalibrated = raw_task.on(raw).answers(inputs)
    expected = {
        label: sum(said.probabilities[label] for said in uncalibrated) / len(uncalibrated)
        for label in LABELS
    }
    prior = calibrate(task.on(model), inputs if real else None)
    assert prior == pytest.approx(expected, abs=1e-9)
    for before, after in zip(
        raw_task.on(raw).answers(examples()), task.on(model).answers(examples()), strict=True
    ):
        weights = {label: before.probabilities[label] / expected[label] for label in LABELS}
        for label in LABELS:
            share = weights[label] / sum(weights.values())
            assert after.probabilities[label] == pytest.approx(share, rel=1e-5, abs=1e-12)


def test_an_input_without_any_token_is_left_out_of_the_prior() -> None:
    task = cloze("gpt2", pattern="{text} {mask}", calibrated=True)
    model = tuned(backbone("gpt2"), task)
    prior = calibrate(task.on(model), None)
    raw = cloze("gpt2", pattern="{text} {mask}")
    (said,) = raw.on(tuned(backbone("gpt2"), raw)).answers([Example({"text": "N/A"})])
    assert prior == pytest.approx(said.probabilities, abs=1e-9)


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5"])
def test_a_missing_word_is_the_most_probable_of_all(family: str) -> None:
    text = Templates.of(pattern(family))
    task = MissingWord(text)
    model = tuned(backbone(family), task)
    said = task.on(model).answers(examples())
    with ExactFloat64(), torch.no_grad():
        hand = ByHand(family, model)
        for example, answered in zip(examples(), said, strict=True):
            (window,) = task.rows(model, example, labelled=False)
            (found,) = model.read(model.lay_out([window.pair]))
            ids = window.pair.source
            if window.pair.marks:
                expected = hand.at(ids, list(window.pair.marks))[0]
            else:
                expected = hand.next(ids, [VOCABULARY + 1] if family == "t5" else [])
            assert_close(found, expected)
            assert answered.answer == tokens().tokenizer.decode([int(expected.argmax())]).strip()
            assert answered.probability == pytest.approx(float(expected.exp().max()))


def test_an_answer_is_spelt_as_the_example_has_it() -> None:
    """A vocabulary in small letters knows one token for both."""
    task = MissingWord(Templates.of("{text} {mask}"))
    model = tuned(backbone("gpt2"), task)
    (answered,) = task.on(model).answers([Example({"text": "so"})])
    word = answered.answer
    (same,) = task.on(model).answers([Example({"text": "so"}, references=("other", word))])
    assert same.answer == word


def test_a_missing_word_is_trained_on_words_of_one_token() -> None:
    task = MissingWord(Templates.of("{text} {mask}"))
    long = Example({"text": "so"}, references=("unpronounceable",), where="f, line 2")
    with pytest.raises(DataError, match=r"f, line 2: the answer 'unpronounceable' is \d+ tokens"):
        task.rows(tuned(backbone("gpt2"), task), long)


@pytest.mark.parametrize("family", ["gpt2", "opt", "bert", "t5"])
def test_the_longest_word_fits_the_context(family: str) -> None:
    """An input that is cut leaves room for the words, to the last position and not beyond."""
    task = cloze(family)
    model = tuned(backbone(family), task)
    context = model.backbone.geometry.context
    example = Example({"text": "word " * 400}, label="no")
    if context is None:
        task = Cloze(Templates.of(pattern(family), max_tokens=40), LABELS, WORDS)
        context = 40
    longest = max(map(len, word_tokens(task, model)))
    for labelled in (True, False):
        windows = task.rows(model, example, labelled=labelled)
        for window in windows:
            assert window.cut
            behind = longest - 1 if family in DECODERS else 0
            assert context - 2 <= len(window.pair.source) + behind <= context
            soft = [i for i in window.pair.source if i >= model.backbone.geometry.vocabulary]
            assert len(soft) == SOFT
        (answered,) = task.on(model).answers([example])
        assert answered.truncated
        assert sum(answered.probabilities.values()) == pytest.approx(1)


def test_a_mask_token_of_the_text_itself_is_not_read() -> None:
    task = cloze("bert")
    model = tuned(backbone("bert"), task)
    example = Example({"text": "a [MASK] day"}, label="no")
    (window,) = task.rows(model, example)
    longest = max(map(len, word_tokens(task, model)))
    assert len(window.pair.marks) == longest
    masks = [i for i, token in enumerate(window.pair.source) if token == tokens().mask_id]
    assert list(window.pair.marks) == masks[1:]


lists = st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=6), min_size=1, max_size=4)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(rows=lists, texts=lists, virtual=st.integers(0, 3), first=st.integers(0, 2))
def test_rows_followed_by_texts_are_rows_of_both(rows, texts, virtual, first) -> None:
    texts = [texts[0][:-1], *texts]  # one may be empty
    options = {"virtual": virtual, "first_position": first}
    found = Layout.of(rows, **options).followed_by(texts)
    whole = [[*row, *text] for row in rows for text in texts]
    expected = Layout.of(whole, **options)
    assert found.attention_mask.sum(1).tolist() == list(map(len, whole))
    for row in range(len(whole)):
        for part in ("input_ids", "position_ids"):
            one, other = getattr(found, part)[row], getattr(expected, part)[row]
            assert (
                one[found.attention_mask[row]].tolist()
                == other[expected.attention_mask[row]].tolist()
            )
    assert not found.target_mask.any()
    assert found.virtual == virtual


@torch.no_grad()
def test_a_decoder_that_tells_texts_apart_is_told_so_beside_longer_words() -> None:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=VOCABULARY + 2,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=64,
        is_decoder=True,
        initializer_range=0.5,
    )
    own = BertLMHeadModel(config).double().eval()
    on = Backbone.wrap(copy.deepcopy(own), tokens())
    assert on.tells_texts_apart
    for words in ((("good",), ("bad",)), (("good",), ("not at all bad",))):
        task = Cloze(Templates.of("{a}", second="{b}"), ("yes", "no"), words)
        model = tuned(on, task)
        example = Example({"a": "a film", "b": "it was"})
        (window,) = task.rows(model, example, labelled=False)
        (found,) = model.read(model.lay_out([window.pair]))
        ids, segments = list(window.pair.source), list(window.pair.segments)
        assert set(segments) == {0, 1}
        for said, (word,) in zip(found, task.tokens(on), strict=True):
            read = torch.tensor([[*ids, *word[:-1]]])
            kinds = torch.tensor([[*segments, *[segments[-1]] * (len(word) - 1)]])
            logs = own(input_ids=read, token_type_ids=kinds).logits[0].log_softmax(-1)
            expected = sum(logs[len(ids) - 1 + i, token] for i, token in enumerate(word))
            assert_close(said, expected)


def test_words_stand_after_a_blank_where_the_template_has_one() -> None:
    def words(text: str, second: str | None = None, family: str = "gpt2") -> list[str]:
        task = Cloze(Templates.of(text, second=second), ("a", "b"), (("good",), ("bad",)))
        ((first,), _) = task.tokens(backbone(family))
        return tokens().names(first)

    spaced = tokens().names(tokens().plain(" good"))
    glued = tokens().names(tokens().plain("good"))
    assert spaced != glued
    assert words("{text} {mask}") == spaced
    assert words("{text}\n{mask}") == glued
    assert words("{text}") == spaced, "what a text is followed by"
    assert words("{text}\n") == glued
    assert words("{mask} : {text}", family="bert") == glued
    assert words(" {mask} : {text}", family="bert") == spaced
    assert words("{text}", "{mask} : {text}", family="bert") == glued
    assert words("{text} ({mask})", family="bert") == glued
    assert words("{text} {mask} .", family="t5") == glued
    assert words("{text}", family="t5") == glued, "an answer begins with it"


def test_what_cannot_be_read_is_refused() -> None:
    def refused(error: type[Exception], said: str, family: str, task: Cloze) -> None:
        with pytest.raises(error, match=said):
            task.readout(backbone(family))

    refused(TemplateError, r"'\{text\}' has no \{mask\}", "bert", cloze("bert", pattern="{text}"))
    refused(TemplateError, "put {mask} last", "gpt2", cloze("gpt2", pattern="{mask} . {text}"))
    refused(BackboneError, "no sentinel", "bart", cloze("bart", pattern="{text} {mask}"))
    refused(
        DataError, "'good' says both 'yes' and 'no'", "bert", cloze("bert", (("good",), ("good",)))
    )
    unmasked = Backbone.wrap(plain("bert"), mini_tokens())
    with pytest.raises(BackboneError, match="no mask token"):
        cloze("bert").readout(unmasked)
    task = cloze("gpt2")
    model, unnamed = tuned(backbone("gpt2"), task), Example({"text": "x"}, label="maybe")
    with pytest.raises(DataError, match=r"label 'maybe' is none of .*task\.verbalizer\.words"):
        task.rows(model, unnamed)


def test_notes_name_split_words() -> None:
    notes = cloze("gpt2").notes(backbone("gpt2"))
    assert any("label word 'not at all good' is" in note and "Ġnot" in note for note in notes)
