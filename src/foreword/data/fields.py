"""Columns of a row as fields that templates can name."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from foreword.data.example import Field, Unusable
from foreword.data.lines import short, show
from foreword.errors import DataError, did_you_mean


def fields_of(where: str, columns: Mapping[str, Any]) -> dict[str, Field]:
    """Columns as fields: texts, numbers, lists of texts, records; empty ones are left out.

    A column that holds something else becomes `Unusable`, which is a mistake only where a template
    names it.

    Raises:
        DataError: a column's name is no text.
    """
    for name in columns:
        if not isinstance(name, str):
            raise DataError(f"{where}: expected fields named by text, found {show(name)}")
    return {
        name: _field(where, name, value) for name, value in columns.items() if value is not None
    }


def missing(where: str, name: str, columns: Mapping[str, Any], expected: str) -> str:
    """What is said where a column is missing or empty."""
    known = [short(column) for column in columns if column != name]
    state = "is empty" if name in columns else "is missing"
    hint = "" if name in columns else did_you_mean(name, known)
    return f"{where}: field '{name}' {state}; expected {expected}{hint}"


def _field(where: str, name: str, value: Any) -> Field:
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return _scalar(value)
    if isinstance(value, dict):
        # Parquet gives every record the keys of all others, empty where a record has none.
        inside = {key: inner for key, inner in value.items() if inner is not None}
        wrong = [key for key in inside if not isinstance(inside[key], str | bool | int | float)]
        if wrong:
            inner = f"{name}.{wrong[0]}"
            return _unusable(where, inner, "a text or a number", inside[wrong[0]], value)
        if inside:
            return {key: _scalar(inner) for key, inner in inside.items()}
        value = inside
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    expected = "a text, a number, a list of texts, or a record of names and values"
    return _unusable(where, name, expected, value, value)


def _unusable(where: str, name: str, expected: str, value: Any, whole: Any) -> Unusable:
    place = f"{where}, " if where else ""
    return Unusable(
        f"{place}field '{short(name)}': expected {expected}, found {show(value)}",
        hashlib.sha256(repr(whole).encode()).hexdigest(),
    )


def _scalar(value: str | bool | int | float) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
