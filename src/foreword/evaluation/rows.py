"""Examples and answers as rows of JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from foreword.data import Example
from foreword.tasks import Prediction


def right(example: Example) -> dict[str, Any]:
    """What would be right, by the kind of example."""
    if example.paired is not None:
        scored = {} if example.number is None else {"number": example.number}
        return {"paired": list(example.paired), **scored}
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


def example_of(row: Mapping[str, Any]) -> Example:
    """What a row of `answers.jsonl` was asked, as far as the row says it: the input as one text,
    and what `right` gave."""
    label, tags = row.get("label"), row.get("tags")
    choices, chosen = row.get("choices"), tuple(row.get("right", ()))
    references = tuple(row.get("references", ()))
    if choices is not None:
        references = tuple(choices[number] for number in chosen)
    return Example(
        {"input": str(row["input"])},
        references if label is None else (label,),
        row.get("group"),
        label=label,
        labels=None if "labels" not in row else tuple(row["labels"]),
        number=row.get("number"),
        choices=None if choices is None else tuple(choices),
        right=None if choices is None else chosen,
        tags=None if tags is None else tuple(tags),
        paired=None if "paired" not in row else tuple(row["paired"]),
    )


def prediction_of(row: Mapping[str, Any]) -> Prediction:
    """The answer of a row of `answers.jsonl`, with what metrics ask of it."""
    output = row["output"]
    return Prediction(
        tuple(output) if isinstance(output, list) else output,
        chosen=tuple(row.get("chosen", ())),
        log_likelihoods=tuple(row.get("log_likelihoods", ())),
        rank=row.get("rank"),
    )


def in_full(prediction: Prediction) -> dict[str, Any]:
    """What is known of an answer, beside the answer itself."""
    known = {
        "probability": prediction.probability,
        "probabilities": prediction.probabilities or list(prediction.shares) or None,
        "chosen": list(prediction.chosen) if prediction.shares else None,
        "log_likelihoods": list(prediction.log_likelihoods) or None,
        "start": prediction.start,
        "score": prediction.score,
        "rank": prediction.rank,
        "truncated": prediction.truncated or None,
    }
    return {name: value for name, value in known.items() if value is not None}
