"""What is in a data file, counted before anything is trained on it."""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from foreword.data.alike import Digests
from foreword.data.example import Example, input_of
from foreword.data.tags import entities

_LABELS_SHOWN = 8
_TOLD = 4096


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
    advance: Callable[[int], None] = lambda _: None,
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
        advance: called with the number of examples that were counted since the last call.
    """
    names = None if inputs is None else tuple(inputs)
    inputs_read, answers, writes = Digests(), Digests(), bytearray()
    lengths, numbers = array("q"), array("d")
    labels, tags = Counter[str](), Counter[str]()
    several = [0, 0]
    references = words = turns = blank = 0
    for number, example in enumerate(examples):
        if number and not number % _TOLD:
            advance(_TOLD)
        text = input_of(example, names)
        inputs_read.add(text)
        answers.add(_answer(example))
        writes.append(example.asks_text)
        blank += not text.strip("\0 \t\r\n")
        own = len(text) if example.words is None else len(example.words)
        lengths.append(own if length is None else length(example))
        labels.update(_labels(example))
        tags.update(example.tags or ())
        words += len(example.words or ())
        references += len(example.references) if example.asks_text else 0
        turns += 0 if example.conversation is None else len(example.conversation.answered)
        if example.number is not None:
            numbers.append(example.number)
        if example.labels is not None:
            several[bool(example.labels)] += 1
    advance(1 + (len(examples) - 1) % _TOLD)
    alike, answered = inputs_read.alike(), answers.values()
    apart = answered != answered[alike.first][alike.group]
    without_text = ~np.frombuffer(writes, dtype=bool)[alike.first]
    conflicts = np.flatnonzero(without_text & (np.bincount(alike.group, apart) > 0))
    tagged = examples[0].words is not None
    in_order = np.sort(np.frombuffer(lengths, dtype=np.int64))
    return Census(
        examples=len(examples),
        inputs=len(alike.first),
        references=references,
        labels=dict((labels or tags).most_common()),
        words=words,
        blank=blank,
        duplicates=len(examples) - len(alike.first),
        conflicting=len(conflicts),
        first_conflict=examples[int(alike.last[conflicts[0]])].where if len(conflicts) else None,
        lengths=(int(in_order[0]), _middle(in_order), int(in_order[-1])),
        unit="tokens" if length else "words" if tagged else "characters",
        over=None if room is None else int((in_order > room).sum()),
        empty=len(empty),
        first_empty=empty[0] if empty else None,
        notes=tuple(notes),
        turns=turns,
        unlabelled=several[False] if any(several) else None,
        numbers=(min(numbers), fmean(numbers), max(numbers)) if numbers else None,
    )


def _middle(in_order: NDArray[np.int64]) -> float:
    middle = len(in_order) // 2
    if len(in_order) % 2:
        return int(in_order[middle])
    return (int(in_order[middle - 1]) + int(in_order[middle])) / 2


def _labels(example: Example) -> Iterator[str]:
    if example.label is not None:
        yield example.label
    yield from example.labels or ()
    yield from (f"choice {number} is right" for number in example.right or ())
    if example.tags is not None:
        yield from (kind for kind, _, _ in entities(example.tags))
    if example.spans is not None:
        yield "answerable" if example.spans else "without an answer"


def _answer(example: Example) -> str:
    """What is right, where that is no text to write; equal answers are equal texts."""
    number = None if example.number is None else example.number + 0.0
    spans = None if example.spans is None else [[s.text, s.start] for s in example.spans]
    several = sorted(set(example.labels or ()))
    others = (example.label, several, number, example.right, example.tags, spans)
    return json.dumps([*others, example.paired])


def _many(count: int, one: str) -> str:
    return f"{count:,} {one}{'' if count == 1 else 's'}"
