"""Templates: what they render, and where a mistake in one lies."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreword.errors import TemplateError
from foreword.tasks import Template


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("", ""),
        ("plain", "plain"),
        ("{a}", "1"),
        ("{ a }{a}", "11"),
        ("x {a} y {record}\n", "x 1 y name : A | n : 2\n"),
        ("{{{a}}}", "{1}"),
        ("{{a}}", "{a}"),
        ("}}{{", "}{"),
        ("{two words}", "3"),
    ],
)
def test_render(source: str, text: str) -> None:
    fields = {"a": "1", "record": {"name": "A", "n": "2"}, "two words": "3"}
    assert Template.parse(source).render(fields) == text


def test_slots() -> None:
    assert Template.parse("{{x}} {b}{a}{b}").slots == ("b", "a", "b")


@pytest.mark.parametrize(
    ("source", "column"),
    [
        ("{", 1),
        ("ab{c", 3),
        ("ab{}", 3),
        ("ab{ }", 3),
        ("{a{b}}", 1),
        ("}", 1),
        ("ab}", 3),
        ("{a}}", 4),
        ("{{{", 3),
        ("{{a} b", 4),
    ],
)
def test_mistakes_have_a_column(source: str, column: int) -> None:
    with pytest.raises(TemplateError) as caught:
        Template.parse(source)
    assert f"template {source!r}, column {column}: " in str(caught.value)
    assert "'{{' for a brace" in str(caught.value) or "'}}' for a brace" in str(caught.value)


def test_unknown_fields() -> None:
    template = Template.parse("{recrd}")
    with pytest.raises(TemplateError, match=r"has no field 'recrd' \(did you mean 'record'\?\)"):
        template.render({"record": "x"})
    with pytest.raises(TemplateError, match="known: a, b"):
        template.check(["a", "b"])


def test_values_are_not_read_as_templates() -> None:
    assert Template.parse("{a}|{b}").render({"a": "{b}", "b": "}}"}) == "{b}|}}"


@given(st.text())
def test_any_text_parses_or_is_refused(source: str) -> None:
    try:
        template = Template.parse(source)
    except TemplateError:
        return
    template.render(dict.fromkeys(template.slots, "x"))


@given(st.text())
def test_escaped_text_is_rendered_as_it_was(text: str) -> None:
    escaped = text.replace("{", "{{").replace("}", "}}")
    assert Template.parse(escaped).render({}) == text
