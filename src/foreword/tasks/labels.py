"""The answer is any number of labels, which a head tells."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from foreword.axes.readout import Head, LabelsHead
from foreword.backbone import Backbone
from foreword.data import Example
from foreword.errors import ArtifactError, DataError
from foreword.recipe import HeadSpec, TaskId, TaskSpec, WindowPool
from foreword.scoring.thresholds import USUAL, best_thresholds, shared_threshold
from foreword.tasks.head import new_head
from foreword.tasks.pooled import PooledTask
from foreword.tasks.rows import Prediction, Row
from foreword.tasks.stating import check_windows, labels_of, templates_of
from foreword.tasks.text import Templates
from foreword.tasks.windows import of_several_labels

_USUAL = HeadSpec()


@dataclass(frozen=True)
class SeveralLabels(PooledTask):
    """Any number of labels for a text, or for two: each is told by itself.

    Attributes:
        text: how an example becomes text, and what gives way where it is too long.
        labels: in the order of the head's outputs.
        head: what the head is made of.
        thresholds: from which probability each label is told, in their order; 0.5 where empty.
        windows: how windows of a text that is too long are told together; None: it is cut.
        stride: tokens that neighbouring windows share.
    """

    text: Templates
    labels: tuple[str, ...]
    head: HeadSpec = _USUAL
    thresholds: tuple[float, ...] = ()
    windows: WindowPool | None = None
    stride: int = 128
    answer = "labels"

    @classmethod
    def of(cls, stated: TaskId) -> SeveralLabels:
        """The task as an artifact states it.

        Raises:
            ArtifactError: it has fewer than two labels, or thresholds of others.
        """
        labels = labels_of(stated)
        if stated.thresholds and set(stated.thresholds) != set(labels):
            raise ArtifactError(
                f"task.thresholds: are of {str(list(stated.thresholds))[:200]}, but the labels are "
                f"{str(list(labels))[:200]}"
            )
        thresholds = tuple(stated.thresholds[label] for label in labels if stated.thresholds)
        text = templates_of(stated)
        check_windows(stated, text)
        return cls(text, labels, stated.head, thresholds, stated.windows, stated.stride)

    @classmethod
    def labels_of(cls, example: Example) -> tuple[str, ...]:
        """The labels of an example."""
        return example.labels or ()

    @property
    def metric_options(self) -> Mapping[str, Any]:
        """All labels, in their order."""
        return {"labels": self.labels}

    def readout(self, backbone: Backbone) -> Head:
        """A head with an output for each label."""
        return new_head(self.head, LabelsHead, backbone, len(self.labels))

    def right(self, example: Example) -> tuple[int, ...]:
        """For each label 1 where the example has it, and 0 where not."""
        if example.labels is None:
            raise DataError(f"{example.where}: has no labels to learn from")
        has = {self.label_number(example, label) for label in example.labels}
        return tuple(int(number in has) for number in range(len(self.labels)))

    def prediction(
        self,
        backbone: Backbone,  # noqa: ARG002
        example: Example,  # noqa: ARG002
        rows: Sequence[Row],  # noqa: ARG002
        outputs: Sequence[Tensor],
    ) -> Prediction:
        """The labels that are as probable as their thresholds say."""
        probabilities = dict(
            zip(self.labels, of_several_labels(outputs, self.windows).tolist(), strict=True)
        )
        thresholds = zip(self.labels, self.thresholds or [USUAL] * len(self.labels), strict=True)
        answer = tuple(label for label, least in thresholds if probabilities[label] >= least)
        return Prediction(answer, tuple(probabilities[label] for label in answer), probabilities)

    def settled_on(
        self, spec: TaskSpec, dev: Sequence[Example], answers: Callable[[], list[Prediction]]
    ) -> dict[str, Any]:
        """The thresholds: as the recipe gives them, or those with the highest F1."""
        if isinstance(spec.threshold, float):
            return {"thresholds": dict.fromkeys(self.labels, spec.threshold)}
        if not dev:
            return {"thresholds": dict.fromkeys(self.labels, USUAL)}
        shares = np.array([[p.probabilities[label] for label in self.labels] for p in answers()])
        right = np.array([self.right(example) for example in dev], dtype=bool)
        if spec.threshold == "shared":
            return {"thresholds": dict.fromkeys(self.labels, shared_threshold(shares, right))}
        best = best_thresholds(shares, right)
        return {"thresholds": dict(zip(self.labels, best, strict=True))}
