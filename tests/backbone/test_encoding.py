"""Texts that are tokenised together have the tokens that each has alone."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foreword.backbone import Tokens
from foreword.backbone.layout import Pair
from foreword.backbone.stored_pairs import PairCodec, answers, lengths, longest
from foreword.backbone.text import encoding
from foreword.backbone.text.encoding import encoded, together, with_texts_of
from foreword.errors import DataError
from tokenizers_by_kind import KINDS, tokenizer

TEXTS = st.lists(st.text(max_size=12) | st.sampled_from(["", " ", "a b", "ﬁ 中 é"]), max_size=40)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many texts each call of a tokenizer has."""
    sizes: list[int] = []
    encode = encoding._encode

    def counting(tokenizer: Any, texts: list[str], *, spans: bool) -> Any:
        sizes.append(len(texts))
        return encode(tokenizer, texts, spans=spans)

    monkeypatch.setattr(encoding, "_encode", counting)
    return sizes


@pytest.mark.parametrize("kind", KINDS)
@given(TEXTS, st.booleans())
@settings(max_examples=25, deadline=None)
def test_as_each_alone(kind: str, texts: list[str], spans: bool) -> None:
    own = tokenizer(kind)
    alone = [encoded(own, text, spans=spans) for text in texts]
    assert list(together(own, texts, lambda text: encoded(own, text, spans=spans))) == alone
    for text, (ids, covered) in zip(texts, alone, strict=True):
        given = own(text, add_special_tokens=False, return_offsets_mapping=True)
        assert ids == given["input_ids"]
        assert covered == (given["offset_mapping"] if spans else [])


@pytest.mark.parametrize("kind", KINDS)
def test_sources_and_targets(kind: str, counted: list[int]) -> None:
    tokens = Tokens(tokenizer(kind), virtual=len(tokenizer(kind)))
    texts = [f"text {number} of all" for number in range(100)]

    def both(text: str) -> list[list[int]]:
        return [tokens.source(text), tokens.written(f" and {text}"), tokens.pair(text, "b")[0]]

    alone = [both(text) for text in texts]
    counted.clear()
    assert list(together(tokens.tokenizer, texts, both)) == alone
    assert len(counted) < 20
    assert sum(counted) <= 4 * len(texts) + 20


def test_what_fails_fails_at_its_turn(counted: list[int]) -> None:
    own = tokenizer("bundled")

    def make(number: int) -> int:
        length = len(encoded(own, "x" * number)[0])
        if number in (40, 45):
            raise DataError(f"{number}")
        return length

    made = together(own, range(60), make)
    seen = list(islice(made, 40))
    with pytest.raises(DataError, match="40"):
        next(made)
    assert seen == [len(encoded(own, "x" * number)[0]) for number in range(40)]


def test_what_asks_for_ever_more_texts_is_made_all_the_same() -> None:
    own = tokenizer("bundled")

    def make(number: int) -> list[int]:
        return [len(encoded(own, f"{number} {again}")[0]) for again in range(12)]

    assert list(together(own, range(5), make)) == [make(number) for number in range(5)]


def test_texts_that_are_asked_for_later_are_read_along(counted: list[int]) -> None:
    own = tokenizer("bundled")

    def ids(text: str) -> Callable[[], list[int]]:
        return lambda: encoded(own, text)[0]

    def make(number: int) -> list[int]:
        first = with_texts_of(ids(f"a {number}"), ids(f"b {number}"), lambda: 1 / 0)
        return [*first, *ids(f"b {number}")()]

    made = list(together(own, range(20), make))
    assert counted == [40]
    assert made == [make(number) for number in range(20)]


def test_tokens_are_nobody_elses() -> None:
    own = tokenizer("bundled")

    def make(number: int) -> list[int]:
        ids, _ = encoded(own, "the same")
        ids.append(number)
        return ids

    first, second = together(own, range(2), make)
    assert first[:-1] == second[:-1]
    assert (first[-1], second[-1]) == (0, 1)


ROW = st.lists(st.integers(0, 2**31 - 1), max_size=5)
NUMBERS = st.lists(st.integers(-1, 9), max_size=3).map(tuple)
BETWEEN = st.lists(st.tuples(st.integers(0, 2), st.integers(2, 5)), max_size=2).map(tuple)
SHARES = st.lists(st.floats(0, 1), max_size=3).map(tuple)
FLAT = st.builds(
    Pair,
    ROW,
    ROW,
    NUMBERS,
    NUMBERS | SHARES,
    NUMBERS,
    BETWEEN,
    st.integers(0, 3),
    asks=st.none() | st.integers(0, 4),
)
PAIRS = st.builds(
    lambda pair, beside: Pair(**{**vars(pair), "beside": tuple(beside)}),
    FLAT,
    st.lists(FLAT, max_size=2),
)


@given(st.lists(PAIRS, min_size=1, max_size=3))
@settings(max_examples=40, deadline=None)
def test_a_pair_comes_back_as_it_was(pairs: list[Pair]) -> None:
    batch = PairCodec().pack(pairs)
    unpack = PairCodec().unpack(batch)
    assert [repr(unpack(at)) for at in range(len(pairs))] == list(map(repr, pairs))
    assert lengths(pairs).tolist() == batch.column("length").to_pylist()
    assert lengths(pairs).tolist() == [pair.length for pair in pairs]
    assert answers(pairs).tolist() == [pair.answers for pair in pairs]
    rows = [len(row.source) + len(row.target) for pair in pairs for row in pair.rows]
    assert longest(pairs) == max(rows)
