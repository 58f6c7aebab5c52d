"""Control characters and halves of characters never leave as they are."""

from __future__ import annotations

import json

import pytest

from foreword.common.characters import ascii_json, half_character, printable, to_json

EVERY = "".join(map(chr, range(0x3000))) + "\udfff \ud800火🙂"


def test_nothing_that_a_terminal_obeys_is_printable() -> None:
    shown = printable(EVERY)
    assert {c for c in shown if not c.isprintable() and ord(c) < 0xA0} == {"\t", "\n"}
    assert "\\x1b" in shown
    assert "\\x9b" in shown
    assert "\\r" in shown
    shown.encode()
    kept = "żółć [/b] :smile: 火\tx\n"
    assert printable(kept) == kept


def test_json_says_the_same_with_escapes() -> None:
    text = to_json({"a": EVERY, "火": [1, None]})
    assert json.loads(text) == {"a": EVERY, "火": [1, None]}
    assert "火" in text
    assert not {c for c in text if c < " " or "\x7f" <= c < "\xa0" or "\ud800" <= c < "\ue000"}
    assert json.loads(ascii_json(text)) == json.loads(text)
    assert ascii_json(text).isascii()


@pytest.mark.parametrize(("text", "found"), [("a\udcff", "\udcff"), ("火🙂", None), ("", None)])
def test_half_a_character_is_found(text: str, found: str | None) -> None:
    assert half_character(text) == found
