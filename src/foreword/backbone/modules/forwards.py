"""Another `forward` on chosen modules for a while, which several threads may ask for at a time."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

Forward = Callable[..., Any]
Wrap = Callable[[nn.Module, Forward], Forward]
"""Another `forward` for a module, around the one that it has."""
_OURS = "_foreword_wraps"
"""The mark of a `forward` that is set here."""


_changing = threading.Lock()
"""Held while what is set on modules changes; several kinds may be set on one."""


@dataclass
class _Set:
    """What is set on a module.

    Attributes:
        own: its own `forward` before, if it had one beside its class's.
        wraps: by kind, the first one innermost.
    """

    own: Forward | None
    wraps: dict[Shared, Wrap]


_sets: weakref.WeakKeyDictionary[nn.Module, _Set] = weakref.WeakKeyDictionary()


class Shared:
    """One kind of wrapped `forward`, set by the first that asks and taken off by the last, whatever
    other kinds come and go meanwhile."""

    def __init__(self) -> None:
        self._users: dict[int, int] = {}

    @contextmanager
    def on(self, model: nn.Module, modules: Iterable[nn.Module], wrap: Wrap) -> Iterator[None]:
        """Each module's `forward` is what `wrap` makes of it.

        It is set on the module itself, where accelerate too puts what moves a module's inputs and
        weights between devices, and what was there before comes back.

        Args:
            model: whose modules they are; `wrap` and `modules` are the same at each call for it.
        """
        modules = list(modules)
        with _changing:
            users = self._users[id(model)] = self._users.get(id(model), 0) + 1
            if users == 1:
                for module in modules:
                    _sets.setdefault(module, _Set(vars(module).get("forward"), {}))
                    _sets[module].wraps[self] = wrap
                    _put(module)
        try:
            yield
        finally:
            with _changing:
                self._users[id(model)] -= 1
                if not self._users[id(model)]:
                    del self._users[id(model)]
                    for module in modules:
                        del _sets[module].wraps[self]
                        _put(module)


def _put(module: nn.Module) -> None:
    """Let a module's `forward` be what is set on it: in one step, since other threads run it."""
    known = _sets[module]
    run = known.own or type(module).forward.__get__(module)
    for wrap in known.wraps.values():
        run = wrap(module, run)
        setattr(run, _OURS, True)
    if known.wraps or known.own is not None:
        vars(module)["forward"] = run
    else:
        vars(module).pop("forward", None)
    if not known.wraps:
        del _sets[module]


def unwrapped(model: nn.Module) -> None:
    """Take what is set here off a copy of a model, whose modules would run those of the original.

    The model is one without a `forward` of accelerate's.
    """
    for module in model.modules():
        if hasattr(vars(module).get("forward"), _OURS):
            del vars(module)["forward"]
