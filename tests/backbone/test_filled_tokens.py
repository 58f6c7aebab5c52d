"""Words, virtual tokens and a mask as one row of tokens.

The references are the tokenizers themselves: what they make of the plain text, and of a text in
which tokens of theirs that take the blank before them (as RoBERTa's mask token does) stand for the
slots.
"""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import make_backbone
from foreword.backbone import Tokens
from foreword.data import Example
from foreword.errors import DataError
from foreword.tasks.text import Templates
from foreword.templates import Template
from tokenizers_by_kind import KINDS, tokenizer, with_marks

GPT2 = make_backbone("gpt2")
MASK, VIRTUAL = -1, 100_000
WORDS = (
    "a",
    "Great",
    "terrible",
    "un",
    "café",
    "日本",
    "3.5",
    "naïveté",
    "»",
    "x,y",
    "It's",
    "\U0001f600",
)


def tokens_of(kind: str, *, marked: bool = False, encodes: bool | None = None) -> Tokens:
    chosen = with_marks(kind) if marked else tokenizer(kind)
    reads = kind in ("bert", "roberta", "t5") if encodes is None else encodes
    return Tokens(chosen, encodes=reads, virtual=VIRTUAL)


def filled(tokens: Tokens, template: str, second: str | None = None, **fields: str) -> list[int]:
    """As a task makes them: one mask, -1."""
    task = Templates.of(template, second=second)
    return task._filled(tokens, fields, [MASK])[1]


words = st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(" ".join)
slots = st.lists(
    st.sampled_from(["{soft}", "{soft:2}", "{a}", "{b}", "It was", ",", "!"]), max_size=6
)


@st.composite
def templates(draw: st.DrawFn) -> str:
    """Any order of words, fields, virtual tokens and a mask, blanks between them."""
    parts = draw(slots)
    if draw(st.booleans()):
        parts.insert(draw(st.integers(0, len(parts))), "{mask}")
    return " ".join(parts) or "{a}"


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(template=templates(), a=words, b=words)
def test_without_the_slots_the_plain_tokens_are_left(kind, template, a, b) -> None:
    tokens = tokens_of(kind)
    found = filled(tokens, template, a=a, b=b)
    kept = [token for token in found if 0 <= token < VIRTUAL]
    parsed = Template.parse(template)
    bare = "".join(part for part in parsed.fill({"a": a, "b": b}) if isinstance(part, str))
    assert kept == tokens.source(bare)


@pytest.mark.parametrize("kind", ["bundled", "bert", "roberta", "gpt2", "t5"])
@settings(max_examples=40, deadline=None, derandomize=True)
@given(template=templates(), a=words, b=words)
def test_slots_stand_where_the_tokenizers_own_special_tokens_would(kind, template, a, b) -> None:
    tokens = tokens_of(kind, marked=True)
    marked = tokens.tokenizer
    soft, mask = marked.convert_tokens_to_ids("<soft>"), marked.mask_token_id
    parsed = Template.parse(template)
    written = "".join(
        part
        if isinstance(part, str)
        else " <soft>" * part.count
        if hasattr(part, "count")
        else f" {marked.mask_token}"
        for part in parsed.fill({"a": a, "b": b})
    )
    found = filled(tokens, template, a=a, b=b)
    named = [soft if t >= VIRTUAL else mask if t == MASK else t for t in found]
    assert named == tokens.source(written)
    virtual = [token for token in found if token >= VIRTUAL]
    assert virtual == list(range(VIRTUAL, VIRTUAL + parsed.soft)), "each once, in their order"


@pytest.mark.parametrize("kind", ["bundled", "gpt2", "roberta"])
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    a=st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    b=st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
)
def test_byte_level_tokens_lose_nothing_even_where_slots_are_glued(kind, a, b) -> None:
    tokens = tokens_of(kind, encodes=False)
    found = filled(tokens, "{a}{soft}{b}{mask}{a}", a=a, b=b)
    kept = [token for token in found if 0 <= token < VIRTUAL]
    text = tokens.tokenizer.decode(kept, clean_up_tokenization_spaces=False)
    special = tokens.tokenizer.all_special_tokens
    for name in special:
        text = text.removeprefix(name).removesuffix(name)
    assert text == f"{a.rstrip(' ')}{b.rstrip(' ')}{a}"


@pytest.mark.parametrize("kind", ["bert", "roberta"])
@pytest.mark.parametrize(
    ("template", "second"),
    [
        ('"{b}" ?', '{mask}, "{a}"'),
        ("{b} ?", "{mask} , {a}"),
        ("Just {mask} !", "{a}"),
        ("{a}", "In summary , the restaurant is {mask} . {b}"),
    ],
)
def test_two_texts_are_joined_as_the_tokenizer_does(kind, template, second) -> None:
    tokens = tokens_of(kind, marked=True)
    fields = {"a": "Oslo is cold.", "b": "Is it"}
    task = Templates.of(template, second=second)
    _, found, segments = task._filled(tokens, fields, [tokens.mask_id])
    written = [
        Template.parse(text).render(fields).replace("{mask}", tokens.tokenizer.mask_token)
        for text in (template, second)
    ]
    expected = tokens.tokenizer(*written, return_token_type_ids=True)
    assert found == expected["input_ids"]
    assert segments == expected["token_type_ids"]


@pytest.mark.parametrize(
    ("kind", "text", "names"),
    [
        ("bert", "great", ["great"]),
        ("bert", "a", ["a"]),
        ("gpt2", " great", ["Ġgreat"]),
        ("gpt2", "great", ["great"]),
        ("gpt2", "com", ["com"]),
        ("gpt2", ")", [")"]),
        ("t5", " great", ["▁great"]),
        ("t5", "great", ["great"]),
        ("stories", " was", ["▁was"]),
        ("stories", " great", ["▁g", "re", "at"]),
        ("stories", "great", ["g", "re", "at"]),
    ],
)
def test_a_text_that_goes_on(kind: str, text: str, names: list[str]) -> None:
    tokens = tokens_of(kind)
    assert tokens.tokenizer.convert_ids_to_tokens(tokens.continued(text)) == names


def test_it_is_a_word_of_its_own_after_a_slot() -> None:
    """Where a vocabulary has `a` and `##nd`, `nd` after a mask is still no rest of a word."""
    tokens = tokens_of("bert")
    for text in ("nd", "ing", "s", "5"):
        ids = tokens.continued(text)
        assert not any(name.startswith("##") for name in tokens.names(ids)[:1])


def test_sentinels_are_those_of_the_tokenizer() -> None:
    tokens = tokens_of("t5")
    first = tokens.tokenizer.convert_tokens_to_ids("<extra_id_0>")
    assert tokens.sentinel(0) == first != tokens.tokenizer.unk_token_id
    assert tokens_of("gpt2").sentinel(0) is None
    assert tokens_of("bert").sentinel(0) is None


def test_names_show_virtual_tokens() -> None:
    tokens = tokens_of("bert")
    ids = filled(tokens, "{soft} {a} {soft}", a="Great")
    assert tokens.names(ids) == ["[CLS]", "<soft1>", "great", "<soft2>", "[SEP]"]


@pytest.mark.parametrize("rule", ["auto", "always", "never"])
def test_the_beginning_token_stands_before_the_first_virtual_token(rule: str) -> None:
    tokens = Tokens(tokenizer("stories"), bos=rule, virtual=VIRTUAL)
    found = filled(tokens, "{soft} {a}", a="was")
    assert tokens.names(found) == [*(["<s>"] if rule == "always" else []), "<soft1>", "▁was"]


texts = st.lists(st.sampled_from(WORDS), max_size=30).map(" ".join)


@pytest.mark.parametrize("kind", ["bundled", "bert", "t5"])
@settings(max_examples=30, deadline=None, derandomize=True)
@given(a=texts, b=texts, most=st.integers(14, 40))
def test_no_cut_ever_loses_a_slot_or_a_word_of_the_template(kind, a, b, most) -> None:
    tokens = tokens_of(kind)
    backbone = replace(GPT2, tokens=tokens)
    task = Templates.of("{soft:2} {a:cut=2} so {mask} and {soft} {b:cut} .")
    whole, _, _ = task.read(backbone, Example({"a": a, "b": b}), lambda _: None, [MASK])
    room = lambda _: most  # noqa: E731
    found, _, cut = task.read(backbone, Example({"a": a, "b": b}), room, [MASK])
    assert len(found) <= most
    assert cut == len(whole) - len(found)
    assert (cut > 0) == (len(whole) > most)
    if not cut:
        assert found == whole
    slots = [token for token in found if token < 0 or token >= VIRTUAL]
    assert slots == [VIRTUAL, VIRTUAL + 1, MASK, VIRTUAL + 2]
    text = tokens.text([token for token in found if 0 <= token < VIRTUAL])
    assert re.search(r"(^|\s)so and\b.*\.$", text, re.DOTALL), "the template's own words"


def test_nothing_to_cut_is_an_error_that_says_so() -> None:
    backbone = GPT2
    task = Templates.of("{soft:2} {a} {mask}")
    example = Example({"a": "word " * 50}, where="file, line 3")
    with pytest.raises(
        DataError, match=r"file, line 3: the input has \d+ tokens, but .* leaves 20"
    ):
        task.read(backbone, example, lambda _: 20, [MASK])
    task = Templates.of("{soft:30} {a:cut} {mask}")
    with pytest.raises(DataError, match="too long even without the field 'a'"):
        task.read(backbone, example, lambda _: 20, [MASK])


def test_fields_give_way_in_their_order() -> None:
    backbone = GPT2
    task = Templates.of("{a:cut=2} | {b:cut} {mask}")
    fields = {"a": "one two three four five", "b": "six seven eight nine ten"}
    seen = []
    for most in range(14, 2, -1):
        ids, _, _ = task.read(backbone, Example(fields), lambda _, most=most: most, [MASK])
        seen.append(backbone.tokens.text([t for t in ids if t >= 0]))
    assert all(text.startswith("one two three four five |") for text in seen if len(text) > 26)
    assert {text.split("|")[0].strip() for text in seen} > {"one two three four five", "one"}
    assert any(text == "one two three four five |" for text in seen), "b goes before a is touched"
