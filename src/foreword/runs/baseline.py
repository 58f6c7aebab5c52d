"""The bare backbone's figures, measured once for all runs that would measure the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from foreword.artifacts.manifest import versions
from foreword.backbone import Backbone, Decoding
from foreword.common import cached
from foreword.common.bounds import Figure
from foreword.data import Example
from foreword.evaluation import Report
from foreword.recipe import Recipe

FORMAT = "1.1"


class Baseline(BaseModel):
    """What is remembered of a measurement."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    format: str = FORMAT
    scores: dict[str, Figure | None]
    groups: dict[str, dict[str, Figure | None]] = {}


def key_of(
    backbone: Backbone,
    recipe: Recipe,
    examples: Sequence[Example],
    how: Decoding,
    calibrated_on: Sequence[Example],
) -> str:
    """A hash of everything that decides the bare backbone's figures.

    Args:
        backbone: answers.
        recipe: says what is asked and measured.
        examples: are answered.
        how: decoding.
        calibrated_on: what a prior of label words was taken from.
    """
    task = recipe.task.model_dump(mode="json", exclude={"data", "limits"})
    decides = {
        "format": FORMAT,
        "backbone": [backbone.sha256, backbone.dtype, backbone.attention, backbone.quantization],
        "tokens": [backbone.tokens.sha256, backbone.tokens.bos],
        "task": task,
        "answer": recipe.task.answer,
        "decoding": asdict(how),
        "versions": versions(),
    }
    digest = hashlib.sha256(json.dumps(decides, sort_keys=True, default=str).encode())
    for part in (examples, calibrated_on):
        for example in part:
            digest.update(repr(replace(example, where="")).encode())
        digest.update(b"\0")
    return digest.hexdigest()


def measured_once(key: str | None, measure: Callable[[], Report]) -> tuple[Report, bool]:
    """A report, and whether its figures were known; those that were hold no answers.

    Args:
        key: of what decides it; None where something is drawn, and every measurement is another.
        measure: measures.
    """
    name = f"baselines/{key}.json"
    known = None if key is None else _known(cached.recall(name))
    if known is not None:
        return Report([], dict(known.scores), {k: dict(v) for k, v in known.groups.items()}), True
    report = measure()
    if key is not None:
        baseline = Baseline(scores=report.scores, groups=report.groups)
        cached.remember(name, baseline.model_dump(mode="json"))
    return report, False


def _known(stored: Any) -> Baseline | None:
    try:
        known = Baseline.model_validate(stored)
    except ValidationError:
        return None
    return known if known.format == FORMAT else None
