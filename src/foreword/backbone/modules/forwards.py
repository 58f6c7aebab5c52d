"""Another `forward` on chosen modules for a while, which several threads may ask for at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

Forward = Callable[..., Any]
_OURS = "_foreword_wraps"
"""The mark of a `forward` that is set here."""


@dataclass
class _Set:
    """What is set on the modules of one model.

    Attributes:
        before: each module's own `forward` before, if it had one beside its class's.
        users: how many are in `Shared.on` with this model.
    """

    before: list[tuple[nn.Module, Forward | None]]
    users: int = 0


class Shared:
    """One kind of wrapped `forward`, set by the first that asks and taken off by the last."""

    def __init__(self) -> None:
        self._changing = threading.Lock()
        self._set: dict[int, _Set] = {}

    @contextmanager
    def on(
        self, model: nn.Module, modules: Iterable[nn.Module], wrap: Callable[[Forward], Forward]
    ) -> Iterator[None]:
        """Each module's `forward` is what `wrap` makes of it.

        It is set on the module itself, where accelerate too puts what moves a module's inputs and
        weights between devices, and what was there before comes back.

        Args:
            model: whose modules they are; `wrap` and `modules` are the same at each call for it.
        """
        with self._changing:
            active = self._set.get(id(model))
            if active is None:
                active = self._set[id(model)] = _Set(_wrapped(modules, wrap))
            active.users += 1
        try:
            yield
        finally:
            with self._changing:
                active.users -= 1
                if not active.users:
                    del self._set[id(model)]
                    for module, forward in active.before:
                        _restore(module, forward)


def _wrapped(
    modules: Iterable[nn.Module], wrap: Callable[[Forward], Forward]
) -> list[tuple[nn.Module, Forward | None]]:
    before = []
    for module in modules:
        before.append((module, vars(module).get("forward")))
        run = wrap(module.forward)
        setattr(run, _OURS, True)
        vars(module)["forward"] = run
    return before


def _restore(module: nn.Module, forward: Forward | None) -> None:
    if forward is None:
        del vars(module)["forward"]
    else:
        vars(module)["forward"] = forward


def unwrapped(model: nn.Module) -> None:
    """Take what is set here off a copy of a model, whose modules would run those of the original.

    The model is one without a `forward` of accelerate's.
    """
    for module in model.modules():
        if hasattr(vars(module).get("forward"), _OURS):
            del vars(module)["forward"]
