"""A part of the training examples kept for measuring."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from foreword.common.packed import picked
from foreword.data.alike import Digests, Places
from foreword.data.example import Example, input_of, linearise
from foreword.data.stored import restored
from foreword.errors import DataError, UserError


def hold_out(
    examples: Sequence[Example],
    amount: float,
    *,
    seed: int = 0,
    inputs: Iterable[str] | None = None,
    whole: bool = False,
) -> tuple[Sequence[Example], Sequence[Example]]:
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

    def choose() -> tuple[Places, Places]:
        return _parted(examples, amount, seed, names, whole=whole)

    train, held = picked(examples, "hold_out", [amount, seed, names, whole], choose)
    return train, held


def _parted(
    examples: Sequence[Example],
    amount: float,
    seed: int,
    names: tuple[str, ...] | None,
    *,
    whole: bool,
) -> tuple[Places, Places]:
    """The places of the examples that are left, and of those that are held out."""
    digests, writes, numbers = Digests(), bytearray(), array("q")
    labels: dict[str | None, int] = {}
    texts: dict[str, None] = {}
    for example in examples:
        text = input_of(example, names)
        digests.add(f"{seed}\0{text}")
        writes.append(example.asks_text)
        numbers.append(labels.setdefault(example.label, len(labels)))
        if whole:
            texts.setdefault(text)
    alike = digests.alike()
    first = alike.first
    weights = np.where(np.frombuffer(writes, dtype=bool)[first], 1, alike.sizes)
    in_order = np.argsort(digests.values()[first])
    if whole:
        candidates = set(whole_texts(texts))
        stand = np.fromiter((text in candidates for text in texts), dtype=bool)
        in_order = in_order[stand[in_order]]
    total = int(weights[in_order].sum())
    wanted = round(amount * total) if amount < 1 else int(amount)
    if not 0 < wanted < total:
        raise UserError(
            f"hold_out: {amount:g} of {total} examples would leave {max(0, total - wanted)} to "
            f"train on and {min(wanted, total)} to measure on; give a number between"
        )
    own = np.frombuffer(numbers, dtype=np.int64)[first[in_order]]
    strata = {label: in_order[own == number] for label, number in labels.items()}
    quotas = _quotas(
        {label: int(weights[of].sum()) for label, of in strata.items() if len(of)}, wanted
    )
    chosen = np.zeros(len(first), dtype=bool)
    for label, left in quotas.items():
        for group in strata[label]:
            if left == 0:
                break
            if weights[group] <= left:
                chosen[group] = True
                left -= weights[group]
    held = chosen[alike.group]
    apart = held
    if whole:
        measured = [input_of(examples[int(place)], names) for place in np.flatnonzero(held)]
        inside = set(_inside(texts, measured))
        apart = held | np.fromiter((text in inside for text in texts), dtype=bool)[alike.group]
    if apart.all():
        raise UserError(f"hold_out: {amount:g} of {total} examples would leave 0 to train on")
    return np.flatnonzero(~apart), np.flatnonzero(held)


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
) -> tuple[Sequence[Example], Sequence[Example]]:
    """Part examples in those of which no field has a value that is left out, and the others.

    Args:
        examples: as they were read.
        without: field -> its values.

    Raises:
        DataError: an example has no such field.
    """
    named = {name: list(values) for name, values in without.items()}

    def choose() -> list[Places]:
        kept, left = array("q"), array("q")
        for number, example in enumerate(examples):
            (left if _is_left_out(example, without) else kept).append(number)
        return [np.frombuffer(numbers, dtype=np.int64) for numbers in (kept, left)]

    kept, left = picked(examples, "leave_out", named, choose)
    return kept, left


def by_what_was_left_out(
    examples: Sequence[Example], without: Mapping[str, Sequence[str]]
) -> Sequence[Example]:
    """The examples in two groups, `seen` and `not seen`, by whether training leaves such out."""
    return restored(
        examples,
        "by_what_was_left_out",
        {name: list(values) for name, values in without.items()},
        lambda: (
            replace(example, group="not seen" if _is_left_out(example, without) else "seen")
            for example in examples
        ),
    )


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
) -> Sequence[Example]:
    """Examples in an order that a seed, their inputs and their answers decide.

    Neither their old order nor the machine changes it, and the first N are a sample of N: that of a
    smaller N is part of that of a larger one.

    Args:
        examples: as they were read.
        seed: another seed, another order.
        inputs: the fields that make the input; without it all fields do.
    """
    names = None if inputs is None else tuple(inputs)

    def choose() -> tuple[Places]:
        digests = Digests()
        for example in examples:
            answers = (*example.references, example.label or "", *(example.tags or ()))
            digests.add("\0".join((str(seed), "sample", input_of(example, names), *answers)))
        return (np.argsort(digests.values(), kind="stable"),)

    (drawn,) = picked(examples, "shuffled", [seed, names], choose)
    return drawn


def few_shot(
    examples: Sequence[Example],
    per_label: int,
    *,
    seed: int = 0,
    inputs: Iterable[str] | None = None,
    most: int | None = None,
) -> tuple[Sequence[Example], Sequence[Example]]:
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

    def choose() -> tuple[Places, Places]:
        return _drawn(examples, per_label, seed, names, most)

    drawn, others = picked(examples, "few_shot", [per_label, seed, names, most], choose)
    return drawn, others


def _drawn(
    examples: Sequence[Example],
    per_label: int,
    seed: int,
    names: tuple[str, ...] | None,
    most: int | None,
) -> tuple[Places, Places]:
    """The places of the examples that are drawn, and of those with other inputs."""
    digests, numbers = Digests(), array("q")
    labels: dict[str, int] = {}
    for example in examples:
        digests.add(f"{seed}\0few\0{input_of(example, names)}")
        label = example.label
        numbers.append(-1 if label is None else labels.setdefault(label, len(labels)))
    alike, own = digests.alike(), np.frombuffer(numbers, dtype=np.int64)
    in_order = np.argsort(digests.values(), kind="stable")
    labelled, known = in_order[own[in_order] >= 0], list(labels)
    drawn: dict[str, list[int]] = {}
    for number in dict.fromkeys(own[labelled].tolist()):
        places = labelled[own[labelled] == number]
        _, first = np.unique(alike.group[places], return_index=True)
        drawn[known[number]] = places[np.sort(first)].tolist()
    for label, inputs_drawn in drawn.items():
        if len(inputs_drawn) < per_label:
            raise UserError(
                f"task.limits.per_label: {per_label} are asked for, but the label {label!r} has "
                f"{len(inputs_drawn)} different inputs; give a smaller number"
            )
    turns = zip(*(drawn[label][:per_label] for label in sorted(drawn)), strict=True)
    chosen = np.array([number for turn in turns for number in turn][:most], dtype=np.int64)
    taken = np.isin(alike.group, alike.group[chosen])
    return np.sort(chosen), np.flatnonzero(~taken)


def _quotas(sizes: dict[str | None, int], wanted: int) -> dict[str | None, int]:
    """`wanted` in proportion to `sizes`, in whole numbers (largest remainders)."""
    total = sum(sizes.values())
    exact = {label: size * wanted / total for label, size in sizes.items()}
    quotas = {label: math.floor(share) for label, share in exact.items()}
    by_remainder = sorted(exact, key=lambda label: (quotas[label] - exact[label], str(label)))
    for label in by_remainder[: wanted - sum(quotas.values())]:
        quotas[label] += 1
    return quotas
