"""Paths that a recipe names. No torch."""

from __future__ import annotations

from pathlib import Path

GGUF = ".gguf"


def checked_path(text: str) -> str:
    """A name or a path as it is; ValueError if it cannot be one."""
    if not text or "\0" in text:
        raise ValueError(f"expected a name or a path, found {text!r}")
    return text


def is_backbone(path: Path) -> bool:
    """Whether a backbone may lie there: a folder, or a GGUF file."""
    return path.is_dir() or (path.name.lower().endswith(GGUF) and path.is_file())


def is_url(place: Path | str) -> bool:
    """Whether a place is a URL, such as `s3://bucket/prompts`, and no path."""
    return isinstance(place, str) and "://" in place
