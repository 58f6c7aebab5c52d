"""Batches: each example once an epoch, of similar length, in an order that the seed decides."""

from __future__ import annotations

import random
from itertools import islice, pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from foreword.training import LengthBatches, Pair

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=300)


@given(LENGTHS, st.integers(1, 40), st.integers(0, 5), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_each_example_once_an_epoch(lengths: list[int], size: int, seed: int, number: int) -> None:
    batches = LengthBatches(lengths, size, seed=seed).epoch(number)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert len(batches) == -(-len(lengths) // size)
    assert all(1 <= len(batch) <= size for batch in batches)
    assert sum(len(batch) < size for batch in batches) <= 1


@given(LENGTHS, st.integers(1, 10), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_steps_are_the_epochs_in_parts(lengths: list[int], size: int, accumulation: int) -> None:
    made = LengthBatches(lengths, size, accumulation, seed=3)
    count = made.steps_per_epoch
    steps = list(islice(made.steps(), 2 * count))
    assert [b for step in steps[:count] for b in step] == made.epoch(0)
    assert [b for step in steps[count:] for b in step] == made.epoch(1)
    assert all(len(step) == accumulation for step in steps[: count - 1])
    assert 1 <= len(steps[count - 1]) <= accumulation


def test_the_seed_and_the_epoch_decide_the_order() -> None:
    lengths = [random.Random(0).randint(1, 50) for _ in range(200)]
    first = LengthBatches(lengths, 8, seed=1)
    assert first.epoch(0) == LengthBatches(lengths, 8, seed=1).epoch(0)
    assert first.epoch(5) == LengthBatches(lengths, 8, seed=1).epoch(5)
    assert first.epoch(0) != first.epoch(1)
    assert first.epoch(0) != LengthBatches(lengths, 8, seed=2).epoch(0)
    together = [{frozenset(batch) for batch in first.epoch(number)} for number in (0, 1)]
    assert together[0] != together[1]


def test_batches_are_of_similar_length_and_in_no_order_of_length() -> None:
    shuffle = random.Random(0)
    lengths = [shuffle.randint(10, 100) for _ in range(1600)]
    batches = LengthBatches(lengths, 16).epoch(0)
    spread = [max(of) - min(of) for b in batches if (of := [lengths[i] for i in b])]
    assert sum(spread) / len(spread) < 5
    padded = sum(len(b) * max(lengths[i] for i in b) for b in batches)
    assert padded / sum(lengths) < 1.05
    longest = [max(lengths[i] for i in b) for b in batches]
    rising = sum(a < b for a, b in pairwise(longest))
    assert 0.35 < rising / len(longest) < 0.65


def test_length_of_a_pair() -> None:
    assert Pair([1, 2], [3]).length == 3
