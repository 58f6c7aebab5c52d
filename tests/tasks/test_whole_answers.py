"""What a head says of whole examples: whatever stands beside an example, and however it is cut."""

from __future__ import annotations

import weakref
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from transformers import AutoModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from conftest import VOCABULARY, assert_close, make_backbone, mini_tokens
from foreword.axes.placement import Prefix
from foreword.backbone import Backbone, Call
from foreword.backbone.layout import Layout, Pair
from foreword.data import Example
from foreword.data.example import Span
from foreword.errors import DataError
from foreword.methods import PromptTuning, PTuningV2
from foreword.methods.axes import Table, UniformInit
from foreword.recipe import HeadSpec
from foreword.tasks import (
    Classification,
    Prediction,
    Question,
    ReadTask,
    Row,
    Tagging,
)
from foreword.tasks.text import Templates
from foreword.tuned import TunedModel
from foreword.tuned.compose import compose

LENGTH, CONTEXT = 3, 48
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": CONTEXT,
}
METHODS = {
    "keys": PTuningV2(name="p-tuning-v2", length=LENGTH),
    "columns": PromptTuning(
        name="prompt-tuning", length=LENGTH, reparameterization=Table(std=1.0), init=UniformInit()
    ),
}
TAGS = ("O", "B-X", "I-X", "B-Y")
TASKS: dict[str, ReadTask] = {
    "label": Classification(
        Templates.of("{text}", truncate="text"), ("no", "yes", "so"), HeadSpec(dropout=0.0)
    ),
    "mean": Classification(
        Templates.of("{text}", truncate="text"),
        ("no", "yes", "so"),
        HeadSpec(dropout=0.0, hidden=8, pooling="mean"),
    ),
    "pair": Classification(
        Templates.of("{first}", truncate="text", second="{text}"),
        ("no", "yes", "so"),
        HeadSpec(dropout=0.0),
    ),
    "tags": Tagging(TAGS, HeadSpec(dropout=0.0)),
    "span": Question(HeadSpec(dropout=0.0), max_tokens=24, stride=6, longest=7),
    "none": Question(HeadSpec(dropout=0.0), max_tokens=24, stride=6, longest=7, may_be_none=True),
}
LETTERS = st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Zl", "Zp", "Zs"))
SOME = ("the", "otter", "swims", "in", "river.", "Near,", "us?", "(it)", "otters'", *"—éﬁ火🙂")
WORD = st.one_of(
    st.sampled_from(SOME),
    st.text(LETTERS, min_size=1, max_size=6),
)
BLANKS = st.sampled_from([" ", " ", " ", "  ", "\n", "\t", "\u00a0"])


@st.composite
def texts(draw: st.DrawFn, most: int = 40) -> str:
    words = draw(st.lists(WORD, min_size=1, max_size=most))
    return "".join(word + draw(BLANKS) for word in words)


@st.composite
def examples(draw: st.DrawFn) -> Example:
    """An example that every task can read."""
    text = draw(texts())
    fields = {
        "text": text,
        "first": " ".join(draw(st.lists(st.sampled_from(["who", "what"]), min_size=1, max_size=4))),
        "question": " ".join(draw(st.lists(st.sampled_from(["who", "what"]), max_size=4))),
        "context": text,
    }
    words = tuple(draw(st.lists(WORD, min_size=1, max_size=40)))
    return Example(fields, words=words, where="here")


def encoder(family: str, **options: Any) -> Backbone:
    config = CONFIG_MAPPING[family](**(SMALL | options))
    model = AutoModel.from_config(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, 0.3, generator=generator)
    return Backbone.wrap(model.double().eval(), mini_tokens())


@pytest.fixture(scope="module")
def models() -> Models:
    backbones = {
        "bert": encoder("bert"),
        "roberta": encoder(
            "roberta", pad_token_id=1, type_vocab_size=1, max_position_embeddings=CONTEXT + 2
        ),
        "gpt2": make_backbone("gpt2", torch.float64, n_positions=CONTEXT, n_layer=2),
    }
    return Models(
        ((family, way), {name: tuned(backbone, task, METHODS[way]) for name, task in TASKS.items()})
        for family, backbone in backbones.items()
        for way in METHODS
    )


def tuned(backbone: Backbone, task: ReadTask, method: Any) -> TunedModel:
    torch.manual_seed(0)
    model = compose(backbone, method, task.readout(backbone)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    return model


def say(model: TunedModel, task: ReadTask, given: list[Example], size: int) -> list[Prediction]:
    return task.on(model).answers(given, batch_size=size)


def assert_same(one: Prediction, other: Prediction) -> None:
    assert (one.answer, one.start) == (other.answer, other.start)
    numbers = [
        torch.tensor([*_flat(said.probability), *said.probabilities.values(), said.score or 0.0])
        for said in (one, other)
    ]
    torch.testing.assert_close(*numbers, rtol=1e-6, atol=1e-9)


def _flat(numbers: float | tuple[float, ...]) -> tuple[float, ...]:
    return numbers if isinstance(numbers, tuple) else (numbers,)


class Models(dict[tuple[str, str], dict[str, TunedModel]]):
    """By backbone and method, then by task; short where a failing case is printed."""

    def __repr__(self) -> str:
        return "models"


class LeftPadded(Prefix):
    """The same place, the padding on the other side."""

    def layout(self, *args: Any, **options: Any) -> Layout:
        return super().layout(*args, **{**options, "side": "left"})


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize(
    ("family", "way"),
    [("bert", "keys"), ("bert", "columns"), ("roberta", "columns"), ("gpt2", "keys")],
)
@settings(max_examples=5, deadline=None)
@given(given=st.lists(examples(), min_size=1, max_size=4), size=st.integers(1, 5))
def test_no_answer_depends_on_its_company_or_padding(models, family, way, name, given, size):
    """Nor on how the others are cut: each has more windows, or fewer tokens, than it asked for."""
    model, task = models[family, way][name], TASKS[name]
    together = say(model, task, given, size)
    alone = [say(model, task, [example], 1)[0] for example in given]
    for one, other in zip(alone, together, strict=True):
        assert_same(one, other)
    options = vars(model.placement)
    usual, model.placement = model.placement, LeftPadded(**options)
    try:
        left = say(model, task, given, len(given))
    finally:
        model.placement = usual
    for one, other in zip(alone, left, strict=True):
        assert_same(one, other)


def windows(model: TunedModel, task: ReadTask, example: Example, **options: Any) -> list[Row]:
    return task.rows(model, example, **options)


@settings(max_examples=30, deadline=None)
@given(example=examples())
def test_a_span_is_a_piece_of_its_context(models, example) -> None:
    model = models["bert", "keys"]["span"]
    context = example.fields["context"]
    (said,) = say(model, TASKS["span"], [example], 8)
    if said.start is None:
        assert said.answer == ""
        return
    assert context[said.start : said.start + len(said.answer)] == said.answer


@settings(max_examples=30, deadline=None)
@given(example=examples(), name=st.sampled_from(["span", "none"]))
def test_windows_agree_with_a_search_over_all_spans(models, example, name) -> None:
    """Every window of a context read by itself; every pair of tokens tried by hand in the window
    where most stands around it."""
    model, task = models["bert", "columns"][name], TASKS[name]
    assert isinstance(task, Question)
    best: tuple[float, float, str, int] | None = None
    found = windows(model, task, example, labelled=False)
    endless = SimpleNamespace(backbone=model.backbone, room=lambda _: None)
    (every,) = Question(max_tokens=None).rows(endless, example, labelled=False)
    first = [
        next(n for n in range(1, len(every.at)) if every.at[n : n + len(w.at) - 1] == w.at[1:])
        if len(w.at) > 1
        else 0
        for w in found
    ]

    def around(number: int, i: int, j: int) -> int:
        """Tokens on the side of a stretch where a window has fewer; -1: it is not whole in it."""
        begin, end = first[number], first[number] + len(found[number].at) - 1
        return min(i - begin, end - 1 - j) if begin <= i and j < end else -1

    for number, window in enumerate(found):
        begins, ends = model.read(model.lay_out([window.pair]))[0].tolist()
        none = begins[0] + ends[0]
        for i in range(1, len(begins)):
            for j in range(i, min(i + task.longest, len(begins))):
                start, end = window.at[i][0], window.at[j][1]
                here = i - 1 + first[number], j - 1 + first[number]
                if number != max(range(len(found)), key=lambda n, here=here: around(n, *here)):
                    continue
                odds = begins[i] + ends[j] - none
                if best is None or odds > best[0]:
                    best = odds, begins[i] + ends[j], example.fields["context"][start:end], start
    (said,) = say(model, task, [example], 8)
    if best is None or (task.may_be_none and best[0] <= 0):
        assert said.answer == ""
        return
    assert said.score == pytest.approx(best[0], abs=1e-9)
    assert said.answer == best[2]
    assert said.start == best[3]
    places = sorted((one.start, one.start + len(one.answer)) for one in said.candidates)
    assert all(end <= begin for (_, end), (begin, _) in pairwise(places))
    scores = [one.score for one in said.candidates]
    assert scores == sorted(scores, reverse=True)
    assert said.candidates[0].answer == said.answer


@settings(max_examples=30, deadline=None)
@given(example=examples(), stride=st.integers(0, 8), most=st.integers(20, 40))
def test_windows_hold_every_token_of_a_context(models, example, stride, most) -> None:
    model = models["bert", "keys"]["span"]
    task = Question(max_tokens=most, stride=stride)
    endless = SimpleNamespace(backbone=model.backbone, room=lambda _: None)
    (every,) = Question(max_tokens=None).rows(endless, example, labelled=False)
    found = windows(model, task, example, labelled=False)
    tokens = list(
        zip(every.at, [every.pair.source[mark] for mark in every.pair.marks], strict=True)
    )
    reached = 1
    for window in found:
        assert window.pair.length <= most
        assert window.pair.marks[0] == 0
        here = [
            (at, window.pair.source[mark])
            for at, mark in zip(window.at, window.pair.marks, strict=True)
        ][1:]
        begin = tokens.index(here[0]) if here else reached
        starts = [i for i in range(begin, reached + 1) if tokens[i : i + len(here)] == here]
        assert starts, "its tokens follow on each other, and leave none out before them"
        reached = max(reached, starts[-1] + len(here))
    assert reached == len(tokens)


@settings(max_examples=30, deadline=None)
@given(example=examples(), data=st.data())
def test_a_spans_labels_are_its_tokens(models, example, data) -> None:
    """In a window that holds it whole, the tokens that the labels name cover it; elsewhere, the
    first token says so."""
    model, task = models["bert", "keys"]["span"], TASKS["span"]
    context = example.fields["context"]
    begin = data.draw(st.integers(0, len(context) - 1))
    end = data.draw(st.integers(begin + 1, min(len(context), begin + 12)))
    assume(context[begin:end].strip() == context[begin:end])
    span = Span(context[begin:end], begin)
    asked = Example(example.fields, spans=(span,), where="here")
    for window in windows(model, task, asked):
        first, last = window.pair.labels
        assert (first == 0) == (last == 0)
        covered = {i for at in window.at if at for i in range(*at)}
        if first:
            start, stop = window.at[first][0], window.at[last][1]
            assert start <= begin < end <= stop
            assert first <= last
        else:
            inside = {i for i in range(begin, end) if not context[i].isspace()}
            assert not {begin, end - 1} <= covered or not inside <= covered


@settings(max_examples=40, deadline=None)
@given(example=examples(), most=st.one_of(st.none(), st.integers(1, 30)))
def test_every_word_that_has_a_token_is_read_in_one_window_with_its_own_label(
    models, example, most
) -> None:
    model = models["bert", "keys"]["tags"]
    task = Tagging(TAGS, max_tokens=most)
    tags = tuple(TAGS[i % len(TAGS)] for i in range(len(example.words)))
    tagged = Example({}, words=example.words, tags=tags, where="here")
    found = windows(model, task, tagged)
    text = " ".join(example.words)
    starts = [sum(len(word) + 1 for word in example.words[:i]) for i in range(len(example.words))]
    whole = model.backbone.tokens.tokenizer(text, return_offsets_mapping=True)
    covered = {at for a, b in whole["offset_mapping"] for at in range(a, b)}
    read = {word for window in found for word in window.at}
    for word, start in enumerate(starts):
        assert (word in read) == bool(covered & {*range(start, start + len(example.words[word]))})
    assert sum(len(window.at) for window in found) == len(read), "each in one of them"
    begin = 0
    for window in found:
        assert window.pair.length <= min(most or CONTEXT, CONTEXT)
        assert not window.cut
        ids = window.pair.source
        places = range(begin, len(whole["input_ids"]))
        begin = next(i for i in places if whole["input_ids"][i : i + len(ids)] == ids)
        for word, label in zip(window.at, window.pair.labels, strict=True):
            assert TAGS[label] == tags[word]
    rows = model.read(model.lay_out([window.pair for window in found]))
    said = task.prediction(model.backbone, tagged, found, rows)
    assert len(said.answer) == len(example.words)
    for word in set(range(len(example.words))) - read:
        assert (said.answer[word], said.probability[word]) == (None, None)
    for window, row in zip(found, rows, strict=True):
        for word, shares in zip(window.at, row, strict=True):
            assert said.answer[word] == TAGS[int(shares.argmax())]
            assert said.probability[word] == pytest.approx(float(shares.max()))


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_words_beyond_the_context_are_told_as_in_the_window_where_most_stands_around_them(
    models, family
) -> None:
    """Against the head run by hand on windows that are cut by hand; a decoder looks back alone."""
    model = models[family, "keys"]["tags"]
    words = tuple(f"{w}{i}" for i, w in enumerate(["the", "otter", "sat", "here"] * 30))
    example = Example({}, words=words, where="here")
    most, shared = 40, 12
    task = Tagging(TAGS, max_tokens=most, stride=shared)
    (said,) = say(model, task, [example], 8)
    whole = model.backbone.tokens.tokenizer(" ".join(words), return_offsets_mapping=True)
    ids, length = whole["input_ids"], len(whole["input_ids"])
    assert length > CONTEXT
    begins = list(range(0, length, most - shared))
    at = 0
    for number, word in enumerate(words):
        start = at
        at += len(word) + 1
        token = next(i for i, (a, b) in enumerate(whole["offset_mapping"]) if a <= start < b)
        inside = [b for b in begins if b <= token < b + most]
        best = max(
            inside,
            key=lambda b, token=token: (
                token - b if family == "gpt2" else min(token - b, min(b + most, length) - 1 - token)
            ),
        )
        row = Pair(ids[best : best + most], marks=(token - best,))
        ((shares,),) = model.read(model.lay_out([row]))
        assert said.answer[number] == TAGS[int(shares.argmax())]
        assert said.probability[number] == pytest.approx(float(shares.max()), abs=1e-9)
    assert not said.truncated


@settings(max_examples=20, deadline=None)
@given(example=examples())
def test_a_text_that_is_cut_is_read_to_its_last_token(models, example) -> None:
    for family in ("bert", "gpt2"):
        model = models[family, "keys"]["label"]
        (window,) = windows(model, TASKS["label"], example, labelled=False)
        assert window.pair.length <= model.room(0)
        last = window.pair.length - 1
        assert window.pair.marks == ((0,) if family == "bert" else (last,))


def test_words_without_a_token_are_told_nothing(models) -> None:
    """In a data set one such sentence stops nothing, and stands in its place."""
    model, task = models["bert", "keys"]["tags"], TASKS["tags"]
    full = Example({}, words=("an", "otter"), where="here")
    empty = Example({}, words=("", ""), tags=("O", "O"), where="line 7")
    done: list[int] = []
    said = task.on(model).answers([empty, full, empty], batch_size=2, advance=done.append)
    assert [one.answer for one in (said[0], said[2])] == [(None, None)] * 2
    assert said[1] == say(model, task, [full], 1)[0]
    assert (sum(one.truncated for one in said), sum(done)) == (0, 3)
    assert say(model, task, [empty], 1)[0].probability == (None, None)
    with pytest.raises(DataError, match="line 7: none of its words has a token"):
        windows(model, task, empty)


def test_what_was_read_is_forgotten(models, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing word reads a vocabulary's probabilities of every example: not all at once."""
    model, task = models["bert", "keys"]["label"], TASKS["label"]
    given = [Example({"text": f"an otter {i}"}, where="here") for i in range(6)]
    alive: list[weakref.ref[torch.Tensor]] = []
    real = model.readout.answers

    def answers(taken: torch.Tensor, call: Call) -> list[torch.Tensor]:
        assert sum(one() is not None for one in alive) <= 1  # the last one looked at
        found = real(taken, call)
        alive.extend(map(weakref.ref, found))
        return found

    monkeypatch.setattr(model.readout, "answers", answers)
    task.on(model).answers(given, batch_size=2)
    assert len(alive) == 6


def test_the_first_virtual_token_can_answer(models) -> None:
    backbone = models["bert", "columns"]["label"].backbone
    task = Classification(
        Templates.of("{text}"), ("no", "yes", "so"), HeadSpec(dropout=0.0, pooling="prompt")
    )
    model = tuned(backbone, task, METHODS["columns"])
    given = [
        Example({"text": text}, where="here") for text in ("an otter", "a cold river, near us")
    ]
    pairs = [windows(model, task, example, labelled=False)[0].pair for example in given]
    layout = model.lay_out(pairs)
    states = backbone.hidden(Call(layout, model.prompt()))[:, 0]
    expected = model.readout.logits(states).softmax(-1)
    for said, row in zip(say(model, task, given, 2), expected, strict=True):
        found = torch.tensor(list(said.probabilities.values()), dtype=torch.float64)
        assert_close(found, row.detach())


def test_the_first_virtual_token_can_answer_from_its_slot(models) -> None:
    """Wherever the template has it; tokens before it are real."""
    backbone = models["bert", "columns"]["label"].backbone
    text = Templates.of("Is it so: {soft:2} {text} {soft}")
    task = Classification(text, ("no", "yes"), HeadSpec(dropout=0.0, pooling="prompt"))
    method = PromptTuning(name="prompt-tuning", length=3)
    model = compose(backbone, method, task.readout(backbone), inside=True)
    example = Example({"text": "an otter"}, where="here")
    (window,) = windows(model, task, example, labelled=False)
    (mark,) = window.pair.marks
    assert window.pair.source[mark] == backbone.tokens.virtual
    assert mark > 1


def test_gpt2_is_not_told_of_segments(models) -> None:
    """Its token_type_ids would add the embeddings of tokens 0 and 1 to every token."""
    model = models["gpt2", "keys"]["pair"]
    example = Example({"first": "An otter", "text": "a river"}, where="here")
    (window,) = windows(model, TASKS["pair"], example, labelled=False)
    assert window.pair.segments == ()
    (window,) = windows(models["bert", "keys"]["pair"], TASKS["pair"], example, labelled=False)
    assert set(window.pair.segments) == {0, 1}


def test_each_acceptable_answer_is_trained(models) -> None:
    model = models["bert", "keys"]["span"]
    task = Question(max_tokens=None, stride=4)
    context = "Zo saw Ana Silva near Ana Weir"
    spans = (Span("Ana", 7), Span("Ana Silva", 7), Span("Ana", 7))
    fields = {"question": "Whom?", "context": context}
    several = task.rows(model, Example(fields, spans=spans))
    apart = [
        row.pair for span in spans[:2] for row in task.rows(model, Example(fields, spans=(span,)))
    ]
    assert [row.pair for row in several] == apart
    (none,) = task.rows(model, Example(fields, spans=()))
    assert none.pair.labels == (0, 0)
