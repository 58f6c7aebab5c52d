"""A part of the training examples kept for measuring."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from foreword.data.example import Example, input_of, linearise
from foreword.errors import DataError, UserError


def hold_out(
    examples: Sequence[Example],
    amount: float,
    *,
    seed: int = 0,
    inputs: Iterable[str] | None = None,
    whole: bool = False,
) -> tuple[list[Example], list[Example]]:
    """Part examples in two, each in their old order.

    Examples with the same input stay together, so that nothing is measured on what was trained on.
    With labels, each label's share of the second part is its share of all, to the nearest example.
    The choice follows from the seed and the inputs themselves: neither the order of the examples
    nor the machine changes it, and few change sides when rows are added.

    Args:
        examples: as they were read, rows that ask the same not merged.
        amount: how many are held out; below 1, which share. Examples are counted where they have
            labels, words or spans; where they ask for a text, distinct inputs are.
        seed: another seed, another choice.
        inputs: the fields that make the input; without it all fields do.
        whole: hold out only inputs that stand inside no other, as whole words, and leave out of
            training what stands inside one of them: phrases of sentences that are measured.

    Returns:
        What is left for training, and what is held out.

    Raises:
        UserError: nothing would be held out, or nothing left.
    """
    names = None if inputs is None else tuple(inputs)
    groups: dict[str, list[int]] = {}
    for number, example in enumerate(examples):
        groups.setdefault(input_of(example, names), []).append(number)
    candidates = whole_texts(groups) if whole else list(groups)
    order = sorted(candidates, key=lambda text: hashlib.sha256(f"{seed}\0{text}".encode()).digest())
    strata: dict[str | None, list[list[int]]] = {}
    for text in order:
        strata.setdefault(examples[groups[text][0]].label, []).append(groups[text])
    total = sum(_weight(examples, groups[text]) for text in candidates)
    wanted = round(amount * total) if amount < 1 else int(amount)
    if not 0 < wanted < total:
        raise UserError(
            f"hold_out: {amount:g} of {total} examples would leave {max(0, total - wanted)} to "
            f"train on and {min(wanted, total)} to measure on; give a number between"
        )
    quotas = _quotas(
        {label: sum(_weight(examples, g) for g in members) for label, members in strata.items()},
        wanted,
    )
    chosen: set[int] = set()
    for label, members in strata.items():
        left = quotas[label]
        for group in members:
            weight = _weight(examples, group)
            if weight <= left:
                chosen.update(group)
                left -= weight
    held = [example for number, example in enumerate(examples) if number in chosen]
    measured = [input_of(example, names) for example in held] if whole else []
    inside = {number for text in _inside(groups, measured) for number in groups[text]}
    apart = chosen | inside
    train = [example for number, example in enumerate(examples) if number not in apart]
    if not train:
        raise UserError(f"hold_out: {amount:g} of {total} examples would leave 0 to train on")
    return train, held


def whole_texts(texts: Iterable[str]) -> list[str]:
    """The texts that stand inside no other as whole words, the longest first."""
    having: dict[str, set[int]] = {}
    whole: list[str] = []
    for text in sorted(set(texts), key=lambda text: (-len(text), text)):
        words = text.split()
        within = set.intersection(*(having.get(word, set()) for word in words or [""]))
        if any(_stands_in(text, whole[number]) for number in within):
            continue
        for word in words:
            having.setdefault(word, set()).add(len(whole))
        whole.append(text)
    return whole


def _inside(texts: Iterable[str], measured: Sequence[str]) -> list[str]:
    """The texts that stand inside one of those that are measured."""
    joined = " \0 ".join(f" {' '.join(text.split())} " for text in measured)
    return [text for text in texts if f" {' '.join(text.split())} " in joined] if measured else []


def _stands_in(text: str, other: str) -> bool:
    return f" {' '.join(text.split())} " in f" {' '.join(other.split())} "


def leave_out(
    examples: Sequence[Example], without: Mapping[str, Sequence[str]]
) -> tuple[list[Example], list[Example]]:
    """Part examples in those of which no field has a value that is left out, and the others.

    Args:
        examples: as they were read.
        without: field -> its values.

    Raises:
        DataError: an example has no such field.
    """
    kept: list[Example] = []
    left: list[Example] = []
    for example in examples:
        (left if _is_left_out(example, without) else kept).append(example)
    return kept, left


def by_what_was_left_out(
    examples: Sequence[Example], without: Mapping[str, Sequence[str]]
) -> list[Example]:
    """The examples in two groups, `seen` and `not seen`, by whether training leaves such out."""
    return [
        replace(example, group="not seen" if _is_left_out(example, without) else "seen")
        for example in examples
    ]


def _is_left_out(example: Example, without: Mapping[str, Sequence[str]]) -> bool:
    for name, values in without.items():
        if name not in example.fields:
            raise DataError(
                f"{example.where}: task.data.without names the field '{name}', which is not there "
                f"(there are {', '.join(example.fields)})"
            )
        if linearise(example.fields[name]) in values:
            return True
    return False


def shuffled(
    examples: Sequence[Example], seed: int, *, inputs: Iterable[str] | None = None
) -> list[Example]:
    """Examples in an order that a seed, their inputs and their answers decide.

    Neither their old order nor the machine changes it, and the first N are a sample of N: that of a
    smaller N is part of that of a larger one.

    Args:
        examples: as they were read.
        seed: another seed, another order.
        inputs: the fields that make the input; without it all fields do.
    """
    names = None if inputs is None else tuple(inputs)

    def key(example: Example) -> bytes:
        answers = (*example.references, example.label or "", *(example.tags or ()))
        text = "\0".join((str(seed), "sample", input_of(example, names), *answers))
        return hashlib.sha256(text.encode()).digest()

    return sorted(examples, key=key)


def few_shot(
    examples: Sequence[Example],
    per_label: int,
    *,
    seed: int = 0,
    inputs: Iterable[str] | None = None,
    most: int | None = None,
) -> tuple[list[Example], list[Example]]:
    """A few examples of each label, and the others; each in their old order.

    Inputs that stand twice are taken once. The choice follows from the seed and the inputs
    themselves, as `hold_out`'s does.

    Args:
        examples: with labels.
        per_label: how many of each.
        seed: another seed, another choice.
        inputs: the fields that make the input; without it all fields do.
        most: how many in all; the labels take turns, in their order, until there are so many.

    Raises:
        UserError: a label has too few.
    """
    names = None if inputs is None else tuple(inputs)
    hashed = {
        number: hashlib.sha256(f"{seed}\0few\0{input_of(example, names)}".encode()).digest()
        for number, example in enumerate(examples)
    }
    drawn: dict[str, dict[bytes, int]] = {}
    for number in sorted(hashed, key=lambda number: hashed[number]):
        label = examples[number].label
        if label is not None:
            drawn.setdefault(label, {}).setdefault(hashed[number], number)
    for label, groups_drawn in drawn.items():
        if len(groups_drawn) < per_label:
            raise UserError(
                f"task.limits.per_label: {per_label} are asked for, but the label {label!r} has "
                f"{len(groups_drawn)} different inputs; give a smaller number"
            )
    turns = zip(*(list(drawn[label].values())[:per_label] for label in sorted(drawn)), strict=True)
    chosen = set([number for turn in turns for number in turn][:most])
    taken = {hashed[number] for number in chosen}
    return (
        [example for number, example in enumerate(examples) if number in chosen],
        [example for number, example in enumerate(examples) if hashed[number] not in taken],
    )


def _weight(examples: Sequence[Example], group: list[int]) -> int:
    return 1 if examples[group[0]].asks_text else len(group)


def _quotas(sizes: dict[str | None, int], wanted: int) -> dict[str | None, int]:
    """`wanted` in proportion to `sizes`, in whole numbers (largest remainders)."""
    total = sum(sizes.values())
    exact = {label: size * wanted / total for label, size in sizes.items()}
    quotas = {label: math.floor(share) for label, share in exact.items()}
    by_remainder = sorted(exact, key=lambda label: (quotas[label] - exact[label], str(label)))
    for label in by_remainder[: wanted - sum(quotas.values())]:
        quotas[label] += 1
    return quotas
