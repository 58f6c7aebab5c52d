"""Paths that a recipe names. No torch."""

from __future__ import annotations


def checked_path(text: str) -> str:
    """A name or a path as it is; ValueError if it cannot be one."""
    if not text or "\0" in text:
        raise ValueError(f"expected a name or a path, found {text!r}")
    return text
