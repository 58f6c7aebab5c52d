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
        users: by kind, how many ask for it now.
    """

    own: Forward | None
    wraps: dict[Shared, Wrap]
    users: dict[Shared, int]


_sets: weakref.WeakKeyDictionary[nn.Module, _Set] = weakref.WeakKeyDictionary()


class Shared:
    """One kind of wrapped `forward`, set on a module by the first that asks and taken off by the
    last, whatever other kinds come and go meanwhile."""

    @contextmanager
    def on(self, modules: Iterable[nn.Module], wrap: Wrap) -> Iterator[None]:
        """Each module's `forward` is what `wrap` makes of it.

        It is set on the module itself, where accelerate too puts what moves a module's inputs and
        weights between devices, and what was there before comes back.

        Args:
            modules: several models may share them.
            wrap: does the same at each call; that of the first who asks is set.
        """
        modules = list(modules)
        with _changing:
            for module in modules:
                known = _sets.setdefault(module, _Set(vars(module).get("forward"), {}, {}))
                known.users[self] = known.users.get(self, 0) + 1
                if known.users[self] == 1:
                    known.wraps[self] = wrap
                    _put(module)
        try:
            yield
        finally:
            with _changing:
                for module in modules:
                    known = _sets[module]
                    known.users[self] -= 1
                    if not known.users[self]:
                        del known.users[self], known.wraps[self]
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
