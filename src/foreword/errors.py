"""Every exception that foreword raises on purpose.

    ForewordError
    ├── UserError            the input is wrong: exit status 2
    │   ├── RecipeError      a recipe, or an override, does not say a run
    │   ├── DataError        a data file is malformed
    │   ├── TemplateError    a template does not fit the fields
    │   ├── BackboneError    a backbone cannot be loaded, or cannot carry the prompt
    │   └── ArtifactError    an artifact cannot be read, or does not fit the backbone
    └── RunError             the input was right and the run failed: exit status 1
        └── BusyError        nothing is taken on now

A message names the field, the value found there and what would mend it; arguments are named as the
user gave them (`argument`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches


class ForewordError(Exception):
    """Base of all of foreword's own exceptions. `exit_status` is what the command line returns."""

    exit_status = 1


class UserError(ForewordError):
    """Something the user gave is wrong; the message says what to change."""

    exit_status = 2


class RecipeError(UserError):
    """All that is wrong with a recipe, at once: `problems` has one line for each mistake."""

    def __init__(self, where: str, problems: Iterable[str]) -> None:
        self.where = where
        self.problems = tuple(problems)
        count = len(self.problems)
        head = f"{where}: {count} problem{'' if count == 1 else 's'}"
        super().__init__("\n".join([head, *(f"  - {line}" for line in self.problems)]))


class DataError(UserError):
    """A data file is malformed; the message has the file, the line and the field."""


class TemplateError(UserError):
    """A template does not parse, or names a field that the data does not have."""


class BackboneError(UserError):
    """A backbone cannot be found or loaded, or cannot carry the prompt that is asked for."""


class ArtifactError(UserError):
    """An artifact is damaged, too new, or was trained on another backbone."""


class RunError(ForewordError):
    """A run failed although its input was right (a loss that is not finite, a full disk)."""


class BusyError(RunError):
    """Nothing more is taken on now: too much waits already, or the server is stopping.

    Attributes:
        closing: whether it is stopping.
        retry_after: seconds after which asking again makes sense.
    """

    def __init__(self, message: str, *, closing: bool = False, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.closing, self.retry_after = closing, retry_after


_as_flags = [False]


@contextmanager
def named_as_flags() -> Iterator[None]:
    """In this block `argument` names arguments as the command line does."""
    before, _as_flags[0] = _as_flags[0], True
    try:
        yield
    finally:
        _as_flags[0] = before


def argument(flag: str, python: str | None = None) -> str:
    """An argument as its user knows it: a flag on the command line, a name in Python.

    Args:
        flag: such as `--other-backbone`.
        python: how it is said in Python; the flag's name in backticks (`other_backbone`) if not
            given.
    """
    if _as_flags[0]:
        return flag
    return python if python is not None else f"`{flag.lstrip('-').replace('-', '_')}`"


def refuse_single(name: str, given: object) -> None:
    """Raise UserError where something else stands in the place of a list.

    Python would take a text for a list of its characters, and a mapping for a list of its keys.
    """
    shown = repr(given) if len(repr(given)) <= 60 else f"{repr(given)[:57]}..."
    if not isinstance(given, Iterable):
        raise UserError(f"{name}: expected a list, found {type(given).__name__} {shown}")
    if isinstance(given, str | bytes | Mapping):
        kind = "mapping" if isinstance(given, Mapping) else "text"
        raise UserError(f"{name}: expected a list, found one {kind}; write [{shown}]")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint that ends a message: ` (did you mean 'x'?)`, or what there is to choose from."""
    known = list(known)
    close = get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f" (did you mean '{close[0]}'?)"
    return f" (known: {', '.join(sorted(known))})" if known else ""
