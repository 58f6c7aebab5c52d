"""Slot coverage counts whole words; a target's fixed words are not part of the answer."""

import pytest

from foreword.data import Example
from foreword.evaluation import METRICS
from foreword.tasks.text import Templates


def test_parts_of_words_and_empty_values_do_not_count() -> None:
    record = {"name": "Ann", "rating": "low", "area": "", "type": "male"}
    example = Example({"record": record}, ("x",))
    assert METRICS["slot_coverage"].score(["Annabel is a slow yellow female"], [example]) == 0
    assert METRICS["slot_coverage"].score(["ann: Low, male."], [example]) == 100


def test_values_may_begin_and_end_in_signs() -> None:
    example = Example({"record": {"price": "£20-25", "note": "more (or less)"}}, ("x",))
    assert METRICS["slot_coverage"].score(["It costs £20-25, more (or less)."], [example]) == 100


@pytest.mark.parametrize(
    ("target", "decoded", "answer"),
    [
        (" {reference}", "a bird", "a bird"),
        ("Answer: {reference}", "Answer: a bird", "a bird"),
        ("<<{reference}>>", "<<a bird>>", "a bird"),
        ("{topic}: {reference}", "birds: a bird", "birds: a bird"),
    ],
)
def test_fixed_words_of_the_target(target: str, decoded: str, answer: str) -> None:
    assert Templates.of("{text}", target).bare_answer(decoded) == answer
