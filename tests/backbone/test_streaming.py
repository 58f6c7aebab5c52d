"""Text of tokens as they come, against the text of all of them."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foreword.backbone import Tokens
from foreword.backbone.text.streaming import TextStream
from tokenizers_by_kind import KINDS, tokenizer

TEXTS = (
    "The robin is a small bird.",
    "naïve café – “quoted”… 你好,世界! 🙂👩‍👩‍👧 done",
    " two  blanks\n\nand lines\t end ",
    "unbelievably un-Christmassy 3.14159, don't",
)


def streamed(tokens: Tokens, ids: Sequence[int], stop: Sequence[str] = ()) -> list[str]:
    """What is given after each token, and at the end."""
    stream, given = TextStream(tokens, stop), []
    for token in ids:
        stream.add(token)
        given.append(stream.take())
    given.append(stream.end())
    assert stream.length == len("".join(given))
    return given


@pytest.mark.parametrize("kind", KINDS)
def test_parts_are_the_whole(kind: str) -> None:
    tokens = Tokens(tokenizer(kind))
    for text in TEXTS:
        ids = tokens.plain(text)
        parts = streamed(tokens, ids)
        assert "".join(parts) == tokens.text(ids)
        assert len([part for part in parts if part]) > 4


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**9), many=st.integers(1, 30))
def test_parts_of_random_tokens_are_the_whole(kind: str, seed: int, many: int) -> None:
    """Halves of characters, special tokens and blanks among them."""
    tokens = Tokens(tokenizer(kind))
    chance, size = random.Random(seed), len(tokens.tokenizer)
    ids = [
        chance.randrange(300) if chance.random() < 0.5 else chance.randrange(size)
        for _ in range(many)
    ]
    assert "".join(streamed(tokens, ids)) == tokens.text(ids)


def test_bytes_around_a_special_token_are_one_run() -> None:
    """The text of all has no special token, and then one wrong byte spoils the run."""
    tokens = Tokens(tokenizer("stories"))
    ids = [tokens.tokenizer.convert_tokens_to_ids(name) for name in ("<0x29>", "</s>", "<0xB2>")]
    assert "".join(streamed(tokens, ids)) == tokens.text(ids)
    assert "".join(streamed(tokens, ids[:2])) == tokens.text(ids[:2]) == ")"


def test_a_character_is_given_whole() -> None:
    """Chinese characters are three tokens each in a byte-level vocabulary of English."""
    tokens = Tokens(tokenizer("bundled"))
    ids = tokens.plain("你好")
    assert len(ids) == 6
    assert streamed(tokens, ids) == ["", "", "你", "", "", "好", ""]
    assert "".join(streamed(tokens, ids[:4])) == tokens.text(ids[:4]) == "你\ufffd"


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_stop_word_ends_the_text_before_it(kind: str, data: st.DataObject) -> None:
    """As soon as it is written, and not a character of it is given before."""
    tokens = Tokens(tokenizer(kind))
    ids = tokens.plain(" ".join(TEXTS))
    whole = tokens.text(ids)
    words = st.tuples(st.integers(0, len(whole) - 1), st.integers(1, 9)).map(
        lambda at: whole[at[0] : at[0] + at[1]]
    )
    stop = tuple(data.draw(st.lists(words, min_size=1, max_size=3)))
    stream, given, read = TextStream(tokens, stop), "", 0
    while not stream.stopped:
        stream.add(ids[read])
        read += 1
        given += stream.take()
        assert not any(word in given for word in stop)
    expected = tokens.text(ids[:read])
    assert any(word in expected for word in stop)
    assert not any(word in tokens.text(ids[: read - 1]) for word in stop)
    assert given == expected[: min(at for w in stop if (at := expected.find(w)) >= 0)]
    assert stream.length == len(given)
    stream.add(ids[0])
    assert stream.take() + stream.end() == ""


def test_the_beginning_of_a_stop_word_waits() -> None:
    tokens = Tokens(tokenizer("bundled"))
    ids = tokens.plain("one two") + tokens.plain(" tax") + tokens.plain(" free")
    stream = TextStream(tokens, (" tax return",))
    given = []
    for token in ids:
        stream.add(token)
        given.append(stream.take())
    assert "".join(given) + stream.end() == "one two tax free"
    upto = len(tokens.plain("one two")) + len(tokens.plain(" tax"))
    assert "".join(given[:upto]) == "one two"
