"""Tags that say entities: which scheme they follow, and the same as IOB2.

IOB1 writes B- only where an entity touches the one before it (CoNLL-2003's own files), IOB2 at
every entity's beginning, BIOES (or BILOU) marks ends and single words too (Ratinov & Roth 2009).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_ENTITY = re.compile(r"([BIOESLU])-(.+)", re.DOTALL)
_BEGINS, _GOES_ON = "BSU", "IEL"
OUTSIDE = "O"

Entity = tuple[str, int, int]
"""Its type, its first word, and the word after its last."""


def is_entity_tag(tag: str) -> bool:
    """Whether a tag says a part of an entity: `B-PER`, but not `O` and not `NNP`."""
    match = _ENTITY.fullmatch(tag)
    return match is not None and match[1] != OUTSIDE


def scheme_of(sentences: Iterable[Sequence[str]]) -> str | None:
    """ "IOB1", "IOB2" or "BIOES"; None where no tag says an entity."""
    scheme = None
    for tags in sentences:
        before = OUTSIDE
        for tag in tags:
            if is_entity_tag(tag):
                if tag[0] in "ESLU":
                    return "BIOES"
                if tag[0] == "I" and before[2:] != tag[2:]:
                    scheme = "IOB1"
                scheme = scheme or "IOB2"
            before = tag if is_entity_tag(tag) else OUTSIDE
    return scheme


def iob2(tags: Sequence[str]) -> tuple[str, ...]:
    """Tags of any of the schemes as IOB2.

    What follows no scheme is read as conlleval reads it: a tag that goes on with an entity of
    another type, or with none, begins one.
    """
    given: list[str] = []
    open_type: str | None = None
    for tag in tags:
        match = _ENTITY.fullmatch(tag) if is_entity_tag(tag) else None
        if match is None:
            open_type = None
            given.append(tag)
            continue
        letter, kind = match.groups()
        begins = letter in _BEGINS or kind != open_type
        given.append(f"{'B' if begins else 'I'}-{kind}")
        open_type = None if letter in "SUEL" else kind
    return tuple(given)


def entities(tags: Sequence[str | None]) -> set[Entity]:
    """The entities of a sentence, whatever the scheme of its tags; a word without a tag (None) is
    part of none."""
    spans: set[Entity] = set()
    kind, start = "", -1
    for i, tag in enumerate((*iob2([tag or OUTSIDE for tag in tags]), OUTSIDE)):
        inside = is_entity_tag(tag)
        if start >= 0 and not (inside and tag[0] == "I"):
            spans.add((kind, start, i))
            start = -1
        if inside and tag[0] == "B":
            kind, start = tag[2:], i
    return spans
