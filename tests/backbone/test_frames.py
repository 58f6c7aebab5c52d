"""Special tokens around texts, and windows of long ones.

The references are the tokenizers themselves, with the special tokens that they set, and their own
truncation into windows; which window a word is read in is held against a count of all of them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foreword.backbone import Tokens
from foreword.errors import BackboneError, DataError
from tokenizers_by_kind import KINDS, tokenizer

READS = ("bert", "roberta", "t5")
WORDS = ("a", "Great", "un", "café", "日本", "3.5", "naïveté", "x,y", "It's", "\U0001f600", "[SEP]")


def tokens_of(kind: str, **options: Any) -> Tokens:
    return Tokens(tokenizer(kind), **{"encodes": kind in READS, "virtual": 100_000, **options})


words = st.lists(st.sampled_from(WORDS), max_size=40)
texts = words.map(" ".join)
seconds = st.lists(st.sampled_from(WORDS), min_size=1, max_size=40).map(" ".join)
"""transformers reads an empty second text as none."""


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=20, deadline=None, derandomize=True)
@given(a=texts, b=seconds)
def test_one_text_or_two_stand_as_the_tokenizer_sets_them(kind: str, a: str, b: str) -> None:
    tokens = tokens_of(kind)
    assert tokens.source(a) == tokens.tokenizer(a)["input_ids"]
    expected = tokens.tokenizer(a, b, return_token_type_ids=True)
    found, segments = tokens.pair(a, b)
    assert found == expected["input_ids"]
    assert segments == (expected.get("token_type_ids") or [0] * len(found))


@pytest.mark.parametrize(
    ("kind", "rule", "one", "two"),
    [
        ("bert", "auto", "[CLS] great [SEP]", "[CLS] great [SEP] day [SEP]"),
        ("bert", "always", "[CLS] great [SEP]", "[CLS] great [SEP] day [SEP]"),
        ("bert", "never", "great [SEP]", "great [SEP] day [SEP]"),
        ("roberta", "always", "<s> great </s>", "<s> great </s> </s> day </s>"),
        ("roberta", "never", "great </s>", "great </s> </s> day </s>"),
        ("t5", "auto", "▁great </s>", "▁great </s> ▁day </s>"),
        ("t5", "never", "▁great </s>", "▁great </s> ▁day </s>"),
        ("gpt2", "auto", "great", "great day"),
        ("gpt2", "always", "<|endoftext|> great", "<|endoftext|> great day"),
        ("gpt2", "never", "great", "great day"),
    ],
)
def test_the_rule_moves_the_beginning_token_alone(kind: str, rule: Any, one: str, two: str) -> None:
    """In one text, in two, around the words of a sentence, and in a question's windows."""
    tokens = tokens_of(kind, bos=rule)
    assert tokens.names(tokens.source("great")) == one.split()
    assert tokens.names(tokens.pair("great", "day")[0]) == two.split()
    assert tokens.names(tokens.filled(["great"], ["day"])[0]) == two.split()
    ((ids, read),) = tokens.words(["great"], None, 0)
    assert tokens.names(ids) == one.split()
    assert [tokens.names(ids)[at].strip("▁") for at in read.values()] == ["great"]
    ((ids, segments, covered),) = tokens.windows("great", "day", None, 0)
    assert tokens.names(ids) == two.split()
    assert segments == tokens.pair("great", "day")[1]
    assert [(tokens.names(ids)[at].strip("▁"), span) for at, span in covered.items()] == [
        ("day", (0, 3))
    ]


def test_a_decoders_texts_stay_open_and_an_encoders_are_closed() -> None:
    for kind, end in (("bert", "[SEP]"), ("t5", "</s>"), ("roberta", "</s>")):
        closed, opened = tokens_of(kind), tokens_of(kind, encodes=False)
        for told in (
            lambda tokens: tokens.source("a day"),
            lambda tokens: tokens.pair("a", "day")[0],
            lambda tokens: tokens.words(["a", "day"], None, 0)[0][0],
            lambda tokens: tokens.windows("a", "day", None, 0)[0][0],
        ):
            assert closed.names(told(closed))[-1] == end
            assert told(opened) == told(closed)[:-1]


def test_always_needs_a_beginning_token() -> None:
    with pytest.raises(BackboneError, match=r"tokens\.bos: 'always' was asked for, but"):
        tokens_of("t5", bos="always").pair("a", "b")


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=20, deadline=None, derandomize=True)
@given(context=seconds, room=st.integers(24, 40), stride=st.integers(1, 8))
def test_a_questions_windows_are_the_tokenizers_own(
    kind: str, context: str, room: int, stride: int
) -> None:
    tokens = tokens_of(kind)
    expected = tokens.tokenizer(
        "It's a",
        context,
        truncation="only_second",
        max_length=room,
        stride=stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        return_token_type_ids=True,
    )
    found = tokens.windows("It's a", context, room, stride)
    assert [ids for ids, _, _ in found] == expected["input_ids"]
    for i, (ids, segments, covered) in enumerate(found):
        if kind in ("bert", "roberta"):
            assert segments == expected["token_type_ids"][i]
        spans = expected["offset_mapping"][i]
        of_context = [at for at, which in enumerate(expected.sequence_ids(i)) if which == 1]
        assert covered == {at: spans[at] for at in of_context if spans[at][0] < spans[at][1]}
        assert len(ids) <= room


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ahead", [True, False])
@settings(max_examples=20, deadline=None, derandomize=True)
@given(given=words, room=st.integers(8, 30), stride=st.integers(1, 40))
def test_each_word_is_read_once_where_most_stands_around_it(
    kind: str, ahead: bool, given: list[str], room: int, stride: int
) -> None:
    tokens = tokens_of(kind)
    ((whole, firsts),) = tokens.words(given, None, stride)
    assert whole == tokens.source(" ".join(given))
    rows = tokens.words(given, room, stride, ahead=ahead)
    special = len(tokens.source(""))
    front = len(tokens.leading)
    most = room - special
    step = most - min(stride, most // 2)
    starts = [i * step for i in range(len(rows))]
    length = len(whole) - special
    for start, (ids, _) in zip(starts, rows, strict=True):
        inside = min(most, length - start)
        assert ids[front : front + inside] == whole[front + start : front + start + inside]
        assert len(ids) <= room
    assert starts[-1] + most >= length, "to the end"
    assert sorted(word for _, read in rows for word in read) == sorted(firsts)
    for number, (_, read) in enumerate(rows):
        for word, at in read.items():
            place = firsts[word] - front
            assert at == front + place - starts[number]
            around = []
            for start in starts:
                before, behind = place - start, min(start + most, length) - 1 - place
                inside = before >= 0 and behind >= 0
                around.append((min(before, behind) if ahead else before) if inside else -1)
            assert around[number] == max(around)


def test_no_room_for_a_word() -> None:
    with pytest.raises(DataError, match=r"2 tokens leave no room for a word beside 2 special"):
        tokens_of("bert").words(["a"], 2, 1)


def test_tokens_beyond_the_models_table_are_refused_by_name_and_pads_are_harmless() -> None:
    own = tokens_of("bert")
    size = own.plain("zoo")[0]
    small = replace(own, virtual=size)
    assert small.pad_id == own.pad_id
    beyond = replace(own, virtual=own.plain("great")[0])
    named = r"the token 'great' has the id \d+, but .* rows for the ids 0 to \d+ alone"
    for read in (
        lambda: beyond.plain("a great day"),
        lambda: beyond.source("a great day"),
        lambda: beyond.pair("a", "great"),
        lambda: beyond.filled(["a"], ["great"]),
        lambda: beyond.words(["a", "great"], 10, 2),
        lambda: beyond.windows("great", "a", 20, 2),
        lambda: beyond.windows("a", "a great day", 20, 2),
    ):
        with pytest.raises(DataError, match=named):
            read()
    assert beyond.source("a") == own.source("a")
    marks = replace(own, virtual=101)  # [PAD] alone of the special tokens lies before it
    with pytest.raises(DataError, match=r"the token '\[SEP\]' has the id 102"):
        marks.source("")
    with pytest.raises(DataError, match=r"the token '\[MASK\]' has the id 103"):
        marks.mask_id  # noqa: B018
    padded = tokens_of("gpt2")
    assert replace(padded, virtual=50).pad_id == 0
