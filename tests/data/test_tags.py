"""Schemes of tags: which one a file follows, and all of them as IOB2."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities

from foreword.data.tags import entities, iob2, is_entity_tag, scheme_of

SAME = {
    "IOB1": "I-PER I-PER O I-LOC B-LOC I-LOC I-ORG",
    "IOB2": "B-PER I-PER O B-LOC B-LOC I-LOC B-ORG",
    "BIOES": "B-PER E-PER O S-LOC B-LOC E-LOC S-ORG",
    "BILOU": "B-PER L-PER O U-LOC B-LOC L-LOC U-ORG",
}
"""The same entities in each."""

any_tags = st.lists(
    st.sampled_from(["O", *(f"{a}-{b}" for a in "BIES" for b in ("X", "Y-Z"))]), max_size=8
)


@pytest.mark.parametrize("scheme", SAME)
def test_all_become_iob2(scheme: str) -> None:
    tags = SAME[scheme].split()
    assert " ".join(iob2(tags)) == SAME["IOB2"]
    assert entities(tags) == {
        ("PER", 0, 2),
        ("LOC", 3, 4),
        ("LOC", 4, 6),
        ("ORG", 6, 7),
    }
    assert scheme_of([["O"], tags]) == ("BIOES" if scheme == "BILOU" else scheme)


@pytest.mark.parametrize("tags", [[], ["O", "O"], ["NN", "-LRB-", "O-X", "B-", "NNP-S"]])
def test_what_is_no_scheme(tags: list[str]) -> None:
    assert scheme_of([tags]) is None
    assert not any(map(is_entity_tag, tags))
    assert list(iob2(tags)) == tags
    assert entities(tags) == set()


def test_an_entity_ends_where_nothing_goes_on() -> None:
    assert entities(["E-A", "I-A", "I-B", "O", "I-B"]) == {
        ("A", 0, 1),
        ("A", 1, 2),
        ("B", 2, 3),
        ("B", 4, 5),
    }


@settings(max_examples=60, deadline=None)
@given(any_tags)
def test_iob2_again_is_the_same(tags: list[str]) -> None:
    once = iob2(tags)
    assert iob2(once) == once
    assert entities(once) == entities(tags)
    assert scheme_of([once]) in (None, "IOB2")
    assert len(once) == len(tags)


@settings(max_examples=60, deadline=None)
@given(any_tags)
def test_entities_are_seqevals(tags: list[str]) -> None:
    assert entities(tags) == {(kind, a, b + 1) for kind, a, b in get_entities(list(tags))}
