"""Names and what they stand for: built in, of an installed package, or of a user's own file.

A registry is a read-only mapping. What is registered by a decorator is there at once; packages that
declare an entry point in the registry's group are loaded when a name is first looked up.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from foreword.errors import UserError

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """What can be chosen by name.

    Args:
        what: what a message calls an entry, such as "method".
        group: the group of entry points by which other packages add to it; None: there is none.
    """

    def __init__(self, what: str, group: str | None = None) -> None:
        self.what, self.group = what, group
        self.changes = 0
        self._entries: dict[str, T] = {}
        self._looked = False
        _REGISTRIES.append(self)

    def add(self, name: str, entry: T) -> T:
        """Register an entry. The same definition may be registered again, as a notebook does.

        Raises:
            UserError: another definition has the name.
        """
        known = self._entries.get(name)
        if known is not None and _origin(known) != _origin(entry):
            raise UserError(
                f"{self.what} '{name}': is defined by {' '.join(_origin(known))} and again by "
                f"{' '.join(_origin(entry))}; give one of them another name"
            )
        self._entries[name] = entry
        self.changes += 1
        return entry

    def register(self, name: str) -> Callable[[T], T]:
        """A decorator that registers what it decorates."""
        return lambda entry: self.add(name, entry)

    def __getitem__(self, name: str) -> T:
        if name not in self._entries:
            self._load()
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(self._entries)

    def __len__(self) -> int:
        self._load()
        return len(self._entries)

    def _load(self) -> None:
        """Load what installed packages declare, once."""
        if self._looked or self.group is None:
            return
        self._looked = True
        for point in entry_points(group=self.group):
            try:
                point.load()
            except Exception as error:  # whatever another package's code raises
                problem = f"cannot be loaded ({type(error).__name__}: {error})"
            else:
                problem = "registers nothing by that name"
            if point.name not in self._entries:
                warnings.warn(
                    f"{self.what} '{point.name}' of the entry point {point.value}: {problem}; it "
                    "is not known here",
                    stacklevel=2,
                )


_REGISTRIES: list[Registry[Any]] = []


def registered() -> tuple[tuple[int, int], ...]:
    """What is registered anywhere, as a key: another one after every change."""
    return tuple((one.changes, len(one._entries)) for one in _REGISTRIES)


def _origin(entry: Any) -> tuple[str, str]:
    """Where an entry was defined: the same text run again defines the same."""
    named = getattr(entry, "defined_by", entry)
    return ("foreword", "itself") if named is None else (named.__module__, named.__qualname__)
