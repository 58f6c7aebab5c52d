"""Which work this thread leaves out, of that which changes no number."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Literal, get_args

Saving = Literal[
    "activation", "beginnings", "copies", "gradients", "head", "last_layer", "masks", "outputs"
]
"""What forward passes save; `foreword.recipe.SavingsSpec` says what each is."""
SAVINGS: tuple[Saving, ...] = get_args(Saving)


class _Done(threading.local):
    """The work that this thread does not leave out."""

    savings: frozenset[str] = frozenset()


_done = _Done()


def saves(saving: Saving) -> bool:
    """Whether this thread leaves that work out."""
    return saving not in _done.savings


@contextmanager
def doing(savings: Collection[Saving]) -> Iterator[None]:
    """While it lasts, this thread does the work of these savings, too."""
    before = _done.savings
    _done.savings = before | frozenset(savings)
    try:
        yield
    finally:
        _done.savings = before
