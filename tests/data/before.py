"""How examples were counted, parted and merged before they were packed: in dictionaries of whole
texts. The reference of what replaced it."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean, median
from typing import Any

from foreword.data import Example
from foreword.data.census import Census
from foreword.data.example import input_of
from foreword.data.holding_out import _inside, whole_texts
from foreword.data.tags import entities


def merged(examples: Sequence[Example]) -> list[Example]:
    grouped: dict[Any, list[Example]] = {}
    for number, example in enumerate(examples):
        key: Any = number
        if example.asks_text:
            content = tuple(
                (name, tuple(value.items()) if isinstance(value, dict) else value)
                for name, value in example.fields.items()
            )
            key = (content, example.group)
        grouped.setdefault(key, []).append(example)
    return [
        same[0]
        if len(same) == 1
        else Example(
            same[0].fields,
            tuple(reference for one in same for reference in one.references),
            same[0].group,
            same[0].where,
        )
        for same in grouped.values()
    ]


def census(examples: Sequence[Example], names: Sequence[str] | None) -> Census:
    by_input: dict[str, list[Example]] = {}
    for example in examples:
        by_input.setdefault(input_of(example, names), []).append(example)

    def answer(e: Example) -> Any:
        others = (e.label, frozenset(e.labels or ()), e.number, e.right, e.tags, e.spans)
        return (*others, e.paired)

    conflicts = [
        same
        for same in by_input.values()
        if not same[0].asks_text and len({answer(example) for example in same}) > 1
    ]
    tagged = examples[0].words is not None
    lengths = sorted(
        len(e.words) if e.words is not None else len(input_of(e, names)) for e in examples
    )
    counted: Counter[str] = Counter()
    for e in examples:
        if e.label is not None:
            counted[e.label] += 1
        counted.update(e.labels or ())
        counted.update(f"choice {number} is right" for number in e.right or ())
        if e.tags is not None:
            counted.update(kind for kind, _, _ in entities(e.tags))
        if e.spans is not None:
            counted["answerable" if e.spans else "without an answer"] += 1
    if not counted:
        counted.update(tag for e in examples for tag in e.tags or ())
    several = [e.labels for e in examples if e.labels is not None]
    numbers = [e.number for e in examples if e.number is not None]
    return Census(
        examples=len(examples),
        inputs=len(by_input),
        references=sum(len(e.references) for e in examples if e.asks_text),
        labels=dict(counted.most_common()),
        words=sum(len(e.words or ()) for e in examples),
        blank=sum(len(same) for text, same in by_input.items() if not text.strip("\0 \t\r\n")),
        duplicates=len(examples) - len(by_input),
        conflicting=len(conflicts),
        first_conflict=conflicts[0][-1].where if conflicts else None,
        lengths=(lengths[0], median(lengths), lengths[-1]),
        unit="words" if tagged else "characters",
        unlabelled=sum(not labels for labels in several) if several else None,
        numbers=(min(numbers), fmean(numbers), max(numbers)) if numbers else None,
    )


def hold_out(
    examples: Sequence[Example], amount: float, seed: int, whole: bool
) -> tuple[list[Example], list[Example]] | None:
    """None where nothing would be held out, or nothing left."""
    groups: dict[str, list[int]] = {}
    for number, example in enumerate(examples):
        groups.setdefault(input_of(example), []).append(number)

    candidates = whole_texts(groups) if whole else list(groups)

    def weight(text: str) -> int:
        first = examples[groups[text][0]]
        return 1 if first.asks_text else len(groups[text])

    total = sum(map(weight, candidates))
    wanted = round(amount * total) if amount < 1 else int(amount)
    if not 0 < wanted < total:
        return None
    order = sorted(candidates, key=lambda t: hashlib.sha256(f"{seed}\0{t}".encode()).digest())
    strata: dict[str | None, list[str]] = {}
    for text in order:
        strata.setdefault(examples[groups[text][0]].label, []).append(text)
    exact = {label: sum(map(weight, texts)) * wanted / total for label, texts in strata.items()}
    quotas = {label: math.floor(share) for label, share in exact.items()}
    remainders = sorted(exact, key=lambda label: (quotas[label] - exact[label], str(label)))
    for label in remainders[: wanted - sum(quotas.values())]:
        quotas[label] += 1
    chosen: set[int] = set()
    for label, texts in strata.items():
        left = quotas[label]
        for text in texts:
            if weight(text) <= left:
                chosen.update(groups[text])
                left -= weight(text)
    held = [e for number, e in enumerate(examples) if number in chosen]
    apart = set(chosen)
    if whole:
        measured = [input_of(e) for e in held]
        for text in _inside(groups, measured):
            apart.update(groups[text])
    left_over = [e for number, e in enumerate(examples) if number not in apart]
    return (left_over, held) if left_over else None


def shuffled(examples: Sequence[Example], seed: int) -> list[Example]:
    def key(example: Example) -> bytes:
        answers = (*example.references, example.label or "", *(example.tags or ()))
        text = "\0".join((str(seed), "sample", input_of(example), *answers))
        return hashlib.sha256(text.encode()).digest()

    return sorted(examples, key=key)


def few_shot(
    examples: Sequence[Example], per_label: int, seed: int, most: int | None
) -> tuple[list[Example], list[Example]] | str:
    """The label that has too few, where one has."""
    hashed = [
        hashlib.sha256(f"{seed}\0few\0{input_of(example)}".encode()).digest()
        for example in examples
    ]
    drawn: dict[str, dict[bytes, int]] = {}
    for number in sorted(range(len(examples)), key=lambda number: hashed[number]):
        label = examples[number].label
        if label is not None:
            drawn.setdefault(label, {}).setdefault(hashed[number], number)
    for label, own in drawn.items():
        if len(own) < per_label:
            return label
    turns = zip(*(list(drawn[label].values())[:per_label] for label in sorted(drawn)), strict=True)
    chosen = set([number for turn in turns for number in turn][:most])
    taken = {hashed[number] for number in chosen}
    return (
        [e for number, e in enumerate(examples) if number in chosen],
        [e for number, e in enumerate(examples) if hashed[number] not in taken],
    )


def grouped(examples: Sequence[Example], field: str, values: Sequence[str]) -> list[Example]:
    return [replace(e, group="not seen" if e.fields[field] in values else "seen") for e in examples]
