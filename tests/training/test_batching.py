"""Batches: each example once an epoch, of similar length, in an order that the seed decides."""

from __future__ import annotations

import hashlib
import json
import random
from itertools import islice, pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from foreword.training import LengthBatches, Pair
from foreword.training.batching import POOL

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


def before(lengths: list[int], size: int, seed: int, number: int) -> list[list[int]]:
    """An epoch's batches in lists alone."""
    shuffle = random.Random(f"{seed}/{number}")
    order = list(range(len(lengths)))
    shuffle.shuffle(order)
    batches: list[list[int]] = []
    for start in range(0, len(order), POOL * size):
        pool = sorted(order[start : start + POOL * size], key=lambda i: lengths[i])
        batches += [pool[at : at + size] for at in range(0, len(pool), size)]
    shuffle.shuffle(batches)
    return batches


@given(LENGTHS, st.integers(1, 4), st.integers(1, 3), st.integers(0, 5), st.integers(0, 30))
@settings(max_examples=80, deadline=None)
def test_order_and_hash_are_those_of_lists(
    lengths: list[int], size: int, accumulation: int, seed: int, step: int
) -> None:
    for one in (lengths, np.array(lengths, dtype=np.int32)):
        made = LengthBatches(one, size, accumulation, seed)
        orders = [before(lengths, size, seed, number) for number in range(36)]
        assert [made.epoch(0), made.epoch(3)] == [orders[0], orders[3]]
        steps = [o[at : at + accumulation] for o in orders for at in range(0, len(o), accumulation)]
        assert list(islice(made.steps(step), 3)) == steps[step : step + 3]
        decides = [lengths, size, accumulation, seed, POOL]
        digest = hashlib.sha256(json.dumps(decides).encode()).hexdigest()
        assert made.position(step)["order_sha256"] == digest
        per_epoch = made.steps_per_epoch
        assert made.position(step)["epoch"] == step // per_epoch
        assert made.position(step)["step_in_epoch"] == step % per_epoch


def test_the_hash_of_many_lengths_is_that_of_their_list() -> None:
    lengths = [1 + number % 7 for number in range(2**16 + 5)]
    digest = hashlib.sha256(json.dumps([lengths, 8, 1, 0, POOL]).encode()).hexdigest()
    assert LengthBatches(np.array(lengths), 8).position(0)["order_sha256"] == digest
