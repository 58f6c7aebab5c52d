"""In what two pieces of plain data differ, for messages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_SHOWN = 3


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """A line for each of the first differences, and one for how many more there are; nothing where
    there is none.

    Args:
        before: plain data, as JSON holds them.
        now: the same, as it is now.
    """
    was, is_ = _flat(before), _flat(now)
    names = [key for key in {**is_, **was} if was.get(key) != is_.get(key)]
    lines = [
        f"  - {key}: was {json.dumps(was.get(key))}, is {json.dumps(is_.get(key))}"
        for key in names[:_SHOWN]
    ]
    return [*lines, f"  - and {len(names) - _SHOWN} more"] if len(names) > _SHOWN else lines


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {prefix: value}
    return {
        key: inner
        for name, part in value.items()
        for key, inner in _flat(part, f"{prefix}.{name}" if prefix else str(name)).items()
    }
