"""Batches of similar length, reshuffled each epoch, every example once per epoch."""

from __future__ import annotations

import hashlib
import json
import random
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import numpy as np
from numpy.typing import NDArray

POOL = 50
"""Batches whose examples are sorted by length together; between pools the order is random."""
_CHUNK = 2**16


@dataclass(frozen=True, eq=False)
class LengthBatches:
    """Which examples are trained on together.

    Attributes:
        lengths: of each example, in tokens; an array where there are many.
        batch_size: examples per forward pass.
        accumulation: forward passes per optimizer step.
        seed: decides the order; an epoch's order depends on it and the epoch's number alone.
        pool: batches whose examples are sorted together; with 1 they are what the shuffle makes.
    """

    lengths: Sequence[int] | NDArray[np.integer]
    batch_size: int
    accumulation: int = 1
    seed: int = 0
    pool: int = POOL

    def epoch(self, number: int) -> list[list[int]]:
        """The batches of one epoch: lists of indices, each example in exactly one."""
        return list(self._batches(number, 0))

    def _batches(self, number: int, start: int) -> Iterator[list[int]]:
        """The batches of one epoch from one of them on."""
        shuffle = random.Random(f"{self.seed}/{number}")
        order = array("q", range(len(self.lengths)))
        shuffle.shuffle(order)
        drawn, lengths = np.frombuffer(order, dtype=np.int64), np.asarray(self.lengths)
        size, batches = self.pool * self.batch_size, array("q")
        for begin in range(0, len(drawn), size):
            pool = drawn[begin : begin + size]
            pool[:] = pool[np.argsort(lengths[pool], kind="stable")]
            batches.extend(range(begin, begin + len(pool), self.batch_size))
        shuffle.shuffle(batches)
        for begin in batches[start:]:
            end = min(begin + self.batch_size, begin // size * size + size)
            yield drawn[begin:end].tolist()

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in one epoch."""
        batches = -(-len(self.lengths) // self.batch_size)
        return -(-batches // self.accumulation)

    def steps(self, start: int = 0) -> Iterator[list[list[int]]]:
        """Epoch after epoch, without end: the batches of each optimizer step after `start`."""
        number, done = divmod(start, self.steps_per_epoch)
        while True:
            batches = self._batches(number, done * self.accumulation)
            while step := list(islice(batches, self.accumulation)):
                yield step
            number, done = number + 1, 0

    def position(self, step: int) -> dict[str, int | str]:
        """Where `step` optimizer steps lead, and a hash of all that decides the order."""
        epoch, done = divmod(step, self.steps_per_epoch)
        return {"epoch": epoch, "step_in_epoch": done, "order_sha256": self._order_sha256}

    @cached_property
    def _order_sha256(self) -> str:
        """Of the JSON text `[[length, …], batch size, accumulation, seed, pool]`."""
        digest = hashlib.sha256(b"[[")
        for begin in range(0, len(self.lengths), _CHUNK):
            chunk = np.asarray(self.lengths[begin : begin + _CHUNK]).tolist()
            digest.update(f"{', ' if begin else ''}{json.dumps(chunk)[1:-1]}".encode())
        decides = [self.batch_size, self.accumulation, self.seed, self.pool]
        digest.update(f"], {json.dumps(decides)[1:]}".encode())
        return digest.hexdigest()
