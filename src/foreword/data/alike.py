"""Which texts are alike, by a digest of each; in arrays, since there may be millions of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.int64]
_BYTES = 32


@dataclass(frozen=True, eq=False)
class Alike:
    """Items in groups, which are numbered in the order in which their first items stand.

    Attributes:
        group: the number of each item's group.
        first: the place of each group's first item.
    """

    group: Places
    first: Places

    @property
    def sizes(self) -> Places:
        """How many items each group has."""
        return np.bincount(self.group, minlength=len(self.first))

    @property
    def last(self) -> Places:
        """The place of each group's last item."""
        last = np.zeros(len(self.first), dtype=np.int64)
        np.maximum.at(last, self.group, np.arange(len(self.group)))
        return last


class Digests:
    """The sha256 of texts, in their order."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def add(self, text: str) -> None:
        """Add one."""
        self._bytes += hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()

    def values(self) -> NDArray[np.bytes_]:
        """All of them, which are sorted as their bytes are."""
        return np.frombuffer(self._bytes, dtype=f"S{_BYTES}")

    def alike(self) -> Alike:
        """The texts in groups of equal ones."""
        _, first, group = np.unique(self.values(), return_index=True, return_inverse=True)
        order = np.argsort(first)
        rank = np.empty(len(first), dtype=np.int64)
        rank[order] = np.arange(len(first))
        return Alike(rank[group.reshape(-1)], first[order])
