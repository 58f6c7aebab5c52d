"""What is in a data file, counted before anything is trained on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import Any

from foreword.data.example import Example, input_of
from foreword.data.tags import entities

_LABELS_SHOWN = 8


@dataclass(frozen=True)
class Census:
    """Counts of a list of examples.

    Attributes:
        examples: how many there are.
        inputs: how many different inputs they have.
        references: how many texts to write there are; 0 where none is asked for.
        labels: label -> how many examples have it, the most frequent first; for tagged words: type
            of entity -> how many entities, or tag -> how many words; for questions: answerable or
            not.
        words: how many words are tagged.
        turns: how many turns of the assistant are learned, in conversations.
        blank: examples whose input is empty.
        duplicates: examples whose input stood before.
        conflicting: inputs that stand with different labels, tags or answers.
        first_conflict: where one of them stands.
        lengths: shortest, median and longest input.
        unit: what lengths count.
        over: inputs longer than what fits; None where that is not known.
        empty: rows that were left out because they hold nothing to read.
        first_empty: where the first of them stands.
        notes: what else the reader left out or changed.
        unlabelled: examples with none of the labels, where each may have any number of them; None
            where each has one.
        numbers: smallest, mean and largest, where numbers are asked for.
    """

    examples: int
    inputs: int
    references: int
    labels: dict[str, int]
    words: int
    blank: int
    duplicates: int
    conflicting: int
    first_conflict: str | None
    lengths: tuple[int, float, int]
    unit: str
    over: int | None = None
    empty: int = 0
    first_empty: str | None = None
    notes: tuple[str, ...] = field(default=())
    turns: int = 0
    unlabelled: int | None = None
    numbers: tuple[float, float, float] | None = None

    def lines(self, name: str) -> list[str]:
        """What there is to say, in a few lines; the first begins with the name of the data."""
        shortest, middle, longest = self.lengths
        head = f"{name}: {_many(self.examples, 'example')}"
        if self.references and self.duplicates:
            head += f" of {_many(self.inputs, 'different input')}"
        if self.turns:
            head += f" with {_many(self.turns, 'turn')} of the assistant"
        elif self.references:
            head += f" with {_many(self.references, 'reference')}"
        if self.words:
            head += f" of {_many(self.words, 'word')}"
        sentences = [
            f"{head}; inputs of {shortest:,} to {longest:,} {self.unit}, median {middle:,.0f}",
            *self._of_labels(),
        ]
        if self.numbers is not None:
            low, mean, high = self.numbers
            sentences.append(f"numbers of {low:g} to {high:g}, mean {mean:.4g}")
        if self.empty:
            sentences.append(
                f"{_many(self.empty, 'empty row')} left out, the first {self.first_empty}"
            )
        if self.blank:
            sentences.append(f"{_many(self.blank, 'example')} with an empty input")
        if self.duplicates and not self.references:
            sentences.append(f"{_many(self.duplicates, 'example')} with an input that stood before")
        if self.conflicting:
            sentences.append(
                f"{_many(self.conflicting, 'input')} with different answers, such as "
                f"{self.first_conflict}"
            )
        if self.over:
            sentences.append(f"{_many(self.over, 'input')} too long to fit")
        return [sentences[0], *(f"  {line}" for line in (*sentences[1:], *self.notes))]

    def _of_labels(self) -> list[str]:
        total = sum(self.labels.values()) if self.unlabelled is None else self.examples
        if not self.labels:
            return []
        shown = [
            f"{label} {count:,} ({100 * count / total:.1f} %)"
            for label, count in list(self.labels.items())[:_LABELS_SHOWN]
        ]
        left = len(self.labels) - len(shown)
        shown += [f"and {left} more"] if left else []
        shown += [f"none of them {self.unlabelled:,}"] if self.unlabelled else []
        return [", ".join(shown)]


def take_census(
    examples: Sequence[Example],
    *,
    inputs: Iterable[str] | None = None,
    empty: Sequence[str] = (),
    notes: Sequence[str] = (),
    length: Callable[[Example], int] | None = None,
    room: int | None = None,
) -> Census:
    """Count examples.

    Args:
        examples: at least one, rows that ask the same merged or not.
        inputs: the fields that templates name; without it all fields are the input.
        empty: where rows were left out (`Reading.empty`).
        notes: `Reading.notes`.
        length: tokens of an example's input; without it words are counted where words are tagged,
            else characters.
        room: how many tokens fit.
    """
    names = None if inputs is None else tuple(inputs)
    by_input: dict[str, list[Example]] = {}
    for example in examples:
        by_input.setdefault(input_of(example, names), []).append(example)
    conflicts = [
        same
        for same in by_input.values()
        if not same[0].asks_text and len({_answer(example) for example in same}) > 1
    ]
    tagged = examples[0].words is not None
    lengths = sorted(map(length or (lambda example: _length(example, names)), examples))
    return Census(
        examples=len(examples),
        inputs=len(by_input),
        references=sum(len(e.references) for e in examples if e.asks_text),
        labels=dict(_labels(examples).most_common()),
        words=sum(len(e.words or ()) for e in examples),
        blank=sum(len(same) for text, same in by_input.items() if not text.strip("\0 \t\r\n")),
        duplicates=len(examples) - len(by_input),
        conflicting=len(conflicts),
        first_conflict=conflicts[0][-1].where if conflicts else None,
        lengths=(lengths[0], median(lengths), lengths[-1]),
        unit="tokens" if length else "words" if tagged else "characters",
        over=None if room is None else sum(one > room for one in lengths),
        empty=len(empty),
        first_empty=empty[0] if empty else None,
        notes=tuple(notes),
        turns=sum(len(e.conversation.answered) for e in examples if e.conversation is not None),
        unlabelled=_unlabelled(examples),
        numbers=_numbers(examples),
    )


def _labels(examples: Sequence[Example]) -> Counter[str]:
    counted: Counter[str] = Counter()
    for example in examples:
        if example.label is not None:
            counted[example.label] += 1
        counted.update(example.labels or ())
        counted.update(f"choice {number} is right" for number in example.right or ())
        if example.tags is not None:
            spans = entities(example.tags)
            counted.update(kind for kind, _, _ in spans)
        if example.spans is not None:
            counted["answerable" if example.spans else "without an answer"] += 1
    if not counted:
        counted.update(tag for example in examples for tag in example.tags or ())
    return counted


def _unlabelled(examples: Sequence[Example]) -> int | None:
    given = [example.labels for example in examples if example.labels is not None]
    return sum(not labels for labels in given) if given else None


def _numbers(examples: Sequence[Example]) -> tuple[float, float, float] | None:
    given = [example.number for example in examples if example.number is not None]
    return (min(given), fmean(given), max(given)) if given else None


def _answer(example: Example) -> tuple[Any, ...]:
    several = frozenset(example.labels or ())
    others = (example.label, several, example.number, example.right, example.tags, example.spans)
    return (*others, example.paired)


def _length(example: Example, names: Sequence[str] | None) -> int:
    return len(example.words) if example.words is not None else len(input_of(example, names))


def _many(count: int, one: str) -> str:
    return f"{count:,} {one}{'' if count == 1 else 's'}"
