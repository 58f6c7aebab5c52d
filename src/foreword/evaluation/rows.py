"""Examples and answers as rows of JSON."""

from __future__ import annotations

from typing import Any

from foreword.tasks import Example
from foreword.understanding import Answered


def right(example: Example) -> dict[str, Any]:
    """What would be right, by the kind of example."""
    if example.label is not None:
        return {"label": example.label}
    if example.words is not None:
        return {"tags": list(example.tags or ())}
    return {"references": list(example.references)}


def in_full(told: Answered) -> dict[str, Any]:
    """What a head said, beside its answer: what it knows of it."""
    known = {
        "probability": told.probability,
        "probabilities": told.probabilities or None,
        "start": told.start,
        "score": told.score,
        "truncated": told.truncated or None,
    }
    return {name: value for name, value in known.items() if value is not None}
