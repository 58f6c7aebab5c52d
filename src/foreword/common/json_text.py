"""JSON from outside, nested no deeper than all that handles it later can go. No torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

DEEPEST = 64
"""How many lists and objects may stand inside each other; nothing real comes near it."""
TOO_DEEP = f"it is nested more than {DEEPEST} deep"


def parse_json(
    text: str | bytes, *, object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None
) -> Any:
    """Plain data from JSON.

    This is the only reader of JSON from outside.

    Args:
        text: the JSON.
        object_pairs_hook: makes objects, as `json.loads` has it.

    Raises:
        ValueError: it is not valid JSON (`json.JSONDecodeError`), has a number of thousands of
            digits, or is nested too deeply.
    """
    try:
        value = json.loads(text, object_pairs_hook=object_pairs_hook)
    except RecursionError as error:
        raise ValueError(TOO_DEEP) from error
    if _opened(text) > DEEPEST:
        check_depth(value)
    return value


def _opened(text: str | bytes) -> int:
    """How many lists and objects may begin in a text: at least as many as stand inside each
    other."""
    if isinstance(text, str):
        return text.count("{") + text.count("[")
    return len(text)


def check_depth(value: Any) -> None:
    """Make sure that nested data goes no deeper than `DEEPEST`, nor in a circle.

    Raises:
        ValueError: it does.
    """
    waiting: list[tuple[Any, int]] = [(value, 1)]
    seen: dict[int, int] = {}
    while waiting:
        here, depth = waiting.pop()
        if not isinstance(here, Mapping | list | tuple) or seen.get(id(here), 0) >= depth:
            continue
        if depth > DEEPEST:
            raise ValueError(TOO_DEEP)
        seen[id(here)] = depth
        inner = here.values() if isinstance(here, Mapping) else here
        waiting += [(one, depth + 1) for one in inner]
