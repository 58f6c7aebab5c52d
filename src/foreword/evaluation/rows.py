"""Examples and answers as rows of JSON."""

from __future__ import annotations

from typing import Any

from foreword.data import Example
from foreword.tasks import Prediction


def right(example: Example) -> dict[str, Any]:
    """What would be right, by the kind of example."""
    if example.label is not None:
        return {"label": example.label}
    if example.labels is not None:
        return {"labels": list(example.labels)}
    if example.number is not None:
        return {"number": example.number}
    if example.choices is not None:
        return {"choices": list(example.choices), "right": list(example.right or ())}
    if example.words is not None:
        return {"tags": list(example.tags or ())}
    return {"references": list(example.references)}


def in_full(prediction: Prediction) -> dict[str, Any]:
    """What is known of an answer, beside the answer itself."""
    known = {
        "probability": prediction.probability,
        "probabilities": prediction.probabilities or list(prediction.shares) or None,
        "chosen": list(prediction.chosen) if prediction.shares else None,
        "log_likelihoods": list(prediction.log_likelihoods) or None,
        "start": prediction.start,
        "score": prediction.score,
        "truncated": prediction.truncated or None,
    }
    return {name: value for name, value in known.items() if value is not None}
