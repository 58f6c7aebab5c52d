"""Templates: what they render, and where a mistake in one lies."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreword.errors import TemplateError
from foreword.tasks.text import Templates
from foreword.templates import MaskSlot, Template
from foreword.templates.template import escaped


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


def test_slots_of_every_kind() -> None:
    template = Template.parse("{soft:3} {premise:cut=2} ? {mask} , {soft}{hypothesis:cut} .")
    assert template.slots == ("premise", "hypothesis")
    assert (template.soft, template.cuts) == (4, ("hypothesis", "premise"))
    assert template.mask == MaskSlot(spaced=True)
    assert not template.plain
    assert [type(piece).__name__ for piece in template.pieces] == [
        "SoftSlot",
        "str",
        "FieldSlot",
        "str",
        "MaskSlot",
        "str",
        "SoftSlot",
        "FieldSlot",
        "str",
    ]


@pytest.mark.parametrize(
    ("source", "rendered"),
    [
        ("{soft} {a}", "{soft} one"),
        ("{a} {soft:3}", "one {soft:3}"),
        ("{a} {mask}.", "one {mask}."),
        ("{a}({mask})", "one({mask})"),
        ("{b} {mask}", " {mask}"),
        ("{a}{b}{soft}{b}{a}", "one{soft}one"),
        ("{ soft : 2 }{ mask }", "{soft:2}{mask}"),
        ("{a:cut=7}", "one"),
        ("{{soft}} {{mask}} {a}", "{soft} {mask} one"),
        ("{blank}{soft}", "x{soft}"),
    ],
)
def test_rendering_shows_the_slots(source: str, rendered: str) -> None:
    """A blank before a virtual token or a mask goes, or is the mask's."""
    fields = {"a": "one", "b": "", "blank": "x "}
    assert Template.parse(source).render(fields) == rendered


@pytest.mark.parametrize(
    ("source", "column", "said"),
    [
        ("{mask} and {mask}", 12, "a second {mask}"),
        ("{mask:2}", 1, "{mask} takes no option, found '2'"),
        ("a {soft:0}", 3, "a number from 1 to 4096"),
        ("a {soft:many}", 3, "a number from 1 to 4096"),
        ("a {soft:99999999999999}", 3, "a number from 1 to 4096"),
        ("{a:cute}", 1, "write {a}, {a:cut}"),
        ("{a:cut=x}", 1, "write {a}, {a:cut}"),
        ("{a:cut=}", 1, "write {a}, {a:cut}"),
        ("{:cut}", 1, "is no slot"),
        ("ab {a:cut=0}", 4, "cut counts from 1"),
        ("{soft", 1, "not closed"),
    ],
)
def test_mistakes_in_slots_have_a_column(source: str, column: int, said: str) -> None:
    with pytest.raises(TemplateError) as caught:
        Template.parse(source)
    assert f"template {source!r}, column {column}: " in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{a:cut} {b:cut}", "'a' and 'b' both have cut=1"),
        ("{a:cut=2} {b:cut=2}", "'a' and 'b' both have cut=2"),
        ("{a:cut} {a}", "'a' stands twice and gives way once"),
    ],
)
def test_an_order_of_cuts_that_is_none(source: str, said: str) -> None:
    with pytest.raises(TemplateError) as caught:
        Template.parse(source)
    assert said in str(caught.value)


def test_a_field_may_stand_twice_and_give_way_as_one() -> None:
    assert Template.parse("{a:cut} and {a:cut}").cuts == ("a",)


REVIEW = {"a": "Good food, slow service."}
NEWS = {"a": "Oil rises.", "b": "It fell before."}
ENTAILS = {"p": "No weapons were found.", "h": "Weapons were found"}
ASKS = {"p": "Oslo is in Norway", "q": "is Oslo in Sweden"}
PUBLISHED = [
    # Schick & Schütze 2021a, section 4: Yelp, AG's News, MNLI.
    ("It was {mask}. {a}", None, REVIEW, "It was {mask}. Good food, slow service."),
    ("Just {mask}!", "{a}", REVIEW, "Just {mask}!\nGood food, slow service."),
    (
        "{a}. All in all, it was {mask}.",
        None,
        REVIEW,
        "Good food, slow service.. All in all, it was {mask}.",
    ),
    (
        "{a}",
        "In summary, the restaurant is {mask}.",
        REVIEW,
        "Good food, slow service.\nIn summary, the restaurant is {mask}.",
    ),
    ("{mask}: {a} {b}", None, NEWS, "{mask}: Oil rises. It fell before."),
    ("{mask} - {a} {b}", None, NEWS, "{mask} - Oil rises. It fell before."),
    ("{a} ({mask}) {b}", None, NEWS, "Oil rises. ({mask}) It fell before."),
    ("{a} {b} ({mask})", None, NEWS, "Oil rises. It fell before. ({mask})"),
    ("{mask} News: {a} {b}", None, NEWS, "{mask} News: Oil rises. It fell before."),
    (
        "[ Category: {mask} ] {a} {b}",
        None,
        NEWS,
        "[ Category: {mask} ] Oil rises. It fell before.",
    ),
    # Schick & Schütze 2021b, section 4: RTE, BoolQ.
    ("{h}?", "{mask}, {p}", ENTAILS, "Weapons were found?\n{mask}, No weapons were found."),
    (
        '"{h}"?',
        '{mask}. "{p}"',
        ENTAILS,
        '"Weapons were found"?\n{mask}. "No weapons were found."',
    ),
    (
        "{p} question: {h} True or False? answer: {mask}",
        None,
        ENTAILS,
        "No weapons were found. question: Weapons were found True or False? answer: {mask}",
    ),
    (
        "{p:cut}. Question: {q}? Answer: {mask}.",
        None,
        ASKS,
        "Oslo is in Norway. Question: is Oslo in Sweden? Answer: {mask}.",
    ),
    (
        "{p:cut}. Based on the previous passage, {q}? {mask}.",
        None,
        ASKS,
        "Oslo is in Norway. Based on the previous passage, is Oslo in Sweden? {mask}.",
    ),
    (
        "Based on the following passage, {q}? {mask}. {p:cut}",
        None,
        ASKS,
        "Based on the following passage, is Oslo in Sweden? {mask}. Oslo is in Norway",
    ),
    # Liu et al. 2021: RTE with one virtual token among the words; (3, 3, 3) for facts.
    (
        "{p:cut} Question: {h} ? {soft} Answer: {mask} .",
        None,
        ENTAILS,
        "No weapons were found. Question: Weapons were found ? {soft} Answer: {mask} .",
    ),
    (
        "{soft:3} {mask}{soft:3} {h}{soft:3}",
        None,
        ENTAILS,
        "{soft:3} {mask}{soft:3} Weapons were found{soft:3}",
    ),
    (
        "{soft:3} {p} ? {mask} , {soft:2} {h}",
        None,
        ENTAILS,
        "{soft:3} No weapons were found. ? {mask} , {soft:2} Weapons were found",
    ),
]


@pytest.mark.parametrize(("first", "second", "fields", "rendered"), PUBLISHED)
def test_published_patterns(
    first: str, second: str | None, fields: dict[str, str], rendered: str
) -> None:
    task = Templates.of(first, second=second)
    assert "\n".join(template.render(fields) for template in task.templates) == rendered
    assert task.mask is not None


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
pieces = st.lists(
    st.one_of(
        words.map(escaped),
        st.sampled_from(["{a}", "{b:cut}", "{soft}", "{soft:4}"]),
    ),
    max_size=8,
)


@given(pieces, words, words)
def test_without_its_slots_a_template_is_its_words_and_fields(written, a, b) -> None:
    """Only blanks before a slot are left out."""
    template = Template.parse("".join(written))
    plain = Template.parse("".join(piece for piece in written if not piece.startswith("{soft")))
    fields = {"a": a, "b": b}
    kept = "".join(part for part in template.fill(fields) if isinstance(part, str))
    assert kept.replace(" ", "") == plain.render(fields).replace(" ", "")
    bare = template.without_soft()
    assert bare.render(fields).replace(" ", "") == kept.replace(" ", "")
    if template.plain:
        assert bare.pieces == template.pieces
    assert bare.soft == 0
    assert template.soft == 4 * written.count("{soft:4}") + written.count("{soft}")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"input": "{a} {mask}", "second": "{mask} {b}"}, "a second {mask}"),
        ({"input": "{a:cut}", "second": "{b:cut}"}, "give each field that gives way its own"),
        ({"input": "{a}", "truncate": "b"}, "'b' is no slot"),
        ({"input": "{a:cut}{b}", "truncate": "b"}, "leave task.truncate out"),
        ({"input": "{a}", "target": "{soft} {reference}"}, "takes neither {soft} nor {mask}"),
        ({"input": "{a}", "target": "{reference:cut}"}, "a target is never cut"),
        ({"input": [{"role": "user", "content": "{soft} {a}"}]}, "have no place in messages"),
        (
            {
                "input": [
                    {"role": "system", "content": "{a:cut}"},
                    {"role": "user", "content": "{b:cut}"},
                ]
            },
            "'b' has cut=1, as 'a' has",
        ),
    ],
)
def test_templates_that_do_not_go_together(given: dict[str, object], said: str) -> None:
    with pytest.raises(TemplateError) as caught:
        Templates.of(**given)
    assert said in str(caught.value)


def test_messages_say_what_gives_way_too() -> None:
    messages = [{"role": "user", "content": "{a:cut=2} {b:cut}"}]
    assert Templates.of(messages).cuts == ("b", "a")


@pytest.mark.parametrize(
    ("source", "bare"),
    [
        ("{soft:3} {a} It was {soft} {mask} .", "one It was {mask} ."),
        ("{a} {soft}{a}", "one one"),
        ("{a}{soft}{a}", "oneone"),
        ("{a} {soft} {a}", "one one"),
        ("so {soft}{a}", "so one"),
        ("so {soft}, {a}", "so , one"),
        ("so {soft}{soft:2}{mask}", "so {mask}"),
        ("so{soft}{mask}", "so{mask}"),
        (" {soft}{a}{soft}", "one"),
        ("{soft}\n{a}", "\none"),
    ],
)
def test_the_backbone_alone_reads_the_words_without_gaps(source: str, bare: str) -> None:
    found = Template.parse(source).without_soft()
    assert found.render({"a": "one"}) == bare
    assert found.plain == ("mask" not in source)


def test_a_long_template_is_shown_around_the_mistake() -> None:
    with pytest.raises(TemplateError) as caught:
        Template.parse("x" * 5000 + "{" + "y" * 5000)
    said = str(caught.value)
    assert "xxx{yyy" in said
    assert "column 5001" in said
    assert len(said) < 600
