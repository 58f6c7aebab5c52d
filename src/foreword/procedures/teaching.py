"""The models that teach PET's classifier, and what they say of examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from foreword.backbone.layout import Pair
from foreword.common import opening
from foreword.data import Example
from foreword.errors import RunError
from foreword.tasks import BoundTask

SAID = "said.safetensors"
SMALLEST = 1e-12


@dataclass(frozen=True)
class Member:
    """One model that teaches.

    Attributes:
        generation: 0, or iPET's.
        pattern: its number.
        number: among the models of its pattern.
    """

    generation: int
    pattern: int
    number: int

    @property
    def name(self) -> str:
        """Its folder's."""
        return f"g{self.generation}-p{self.pattern}-m{self.number}"


@dataclass(frozen=True)
class Said:
    """What one model says: the logarithms of the labels' probabilities, `[examples, labels]`."""

    unlabelled: Tensor
    dev: Tensor


def read_said(file: Path, *, unlabelled: int, dev: int, labels: int) -> Said:
    """What a model said, from its file.

    Args:
        file: a safetensors file.
        unlabelled, dev: how many examples of each the model labelled.
        labels: how many labels there are.

    Raises:
        RunError: the file is damaged.
    """
    again = f"delete {file.parent}, and this model is trained again"
    try:
        opening.check_regular(file, within=file.parent)
        kept = load_file(file)
    except (SafetensorError, OSError) as error:
        raise RunError(f"{file}: cannot be read: {error}; {again}") from error
    for name, rows in (("unlabelled", unlabelled), ("dev", dev)):
        if name not in kept or kept[name].shape != (rows, labels):
            raise RunError(f"{file}: expected '{name}' of shape [{rows}, {labels}]; {again}")
    return Said(kept["unlabelled"], kept["dev"])


def soft_pairs(
    task: BoundTask,
    softly: Sequence[tuple[Example, tuple[float, ...]]],
) -> list[Pair]:
    """Softly labelled examples as rows that a classifier learns from."""
    pairs = []
    for example, shares in softly:
        (row,) = task.rows(example, labelled=False)
        pair = row.pair
        pairs.append(Pair(pair.source, [], pair.marks, shares, pair.segments))
    return pairs


def mixed(log_shares: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The mean of what several say, as each counts: `[examples, labels]`."""
    total = sum(weights) or 1.0
    return torch.stack([s * (w / total) for s, w in zip(log_shares, weights, strict=True)]).sum(0)
