"""Artifacts of tiny random prompts, one of each kind, to be loaded on one backbone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from foreword.artifacts.artifact import save_artifact
from foreword.backbone import Backbone
from foreword.methods import HeadOnly, MethodChoice, PrefixTuning, PromptTuning, PTuning, PTuningV2
from foreword.methods.axes import Table, UniformInit
from foreword.recipe import DecodingSpec, TaskId, VectorSpec
from foreword.tasks import task_of
from foreword.tuned.compose import compose

TABLE = Table(std=1.0)
LABELS = ("yes", "no")
WORDS = {"words": {"yes": ["good", "very fine"], "no": "bad"}}


def soft(length: int = 4) -> PromptTuning:
    return PromptTuning(
        name="prompt-tuning", length=length, reparameterization=TABLE, init=UniformInit()
    )


def prefix(length: int = 3) -> PrefixTuning:
    return PrefixTuning(name="prefix-tuning", length=length, reparameterization=TABLE)


def writes(input: str = "{text}\n") -> TaskId:
    return TaskId(input=input, target="{reference}")


def labels(input: str = "{text}", verbalizer: Mapping[str, Any] | None = None) -> TaskId:
    return TaskId(
        input=input, target="{reference}", answer="label", labels=LABELS, verbalizer=verbalizer
    )


def vectors(input: str = "{text}", second: str | None = None, **vector: Any) -> TaskId:
    return TaskId(
        input=input,
        second=second,
        target="{reference}",
        answer="vector",
        paired="other",
        vector=VectorSpec(**vector),
    )


KINDS: dict[str, tuple[MethodChoice, TaskId]] = {
    "soft": (soft(), writes()),
    "other soft": (soft(), writes()),
    "deep": (prefix(), writes("Q: {text} A:")),
    "slots": (PTuning(name="p-tuning", length=3), writes("{soft:2} {text} {soft:1}")),
    "words": (
        PTuning(name="p-tuning", length=2),
        labels("{soft:2} {text} It is {mask}", WORDS),
    ),
    "head": (
        PTuningV2(name="p-tuning-v2", length=4, reparameterization=TABLE),
        labels(),
    ),
    "other head": (HeadOnly(name="head-only"), labels()),
    "vectors": (
        PTuningV2(name="p-tuning-v2", length=3, reparameterization=TABLE),
        vectors(second="of: {other}"),
    ),
    "other vectors": (
        PTuning(name="p-tuning", length=3),
        vectors("{soft:2} {text} {soft:1}", "{other} {soft:3}", pooling="last", normalise=False),
    ),
}
"""Method and task by name, for a decoder."""
WRITERS = ("soft", "other soft", "deep", "slots")
EMBEDDERS = ("vectors", "other vectors")
TELLERS = ("words", "head", "other head")


def store(
    folder: Path,
    backbone: Backbone,
    method: MethodChoice,
    task: TaskId,
    *,
    seed: int = 0,
    **decoding: Any,
) -> Path:
    """An artifact of large random numbers."""
    parsed = task_of(task)
    readout = parsed.readout(backbone)
    model = compose(backbone, method, readout, inside=parsed.soft > 0)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, 0.7, generator=generator)
    own = DecodingSpec(**{"max_new_tokens": 6, **decoding})
    save_artifact(folder, model, name=folder.name, method=method, task=task, decoding=own)
    return folder


def store_all(folder: Path, backbone: Backbone) -> dict[str, Path]:
    """One of each kind."""
    return {
        name: store(folder / name.replace(" ", "-"), backbone, method, task, seed=number)
        for number, (name, (method, task)) in enumerate(KINDS.items())
    }
