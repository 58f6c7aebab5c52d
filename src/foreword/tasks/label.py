"""The answer is a label that a head tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from foreword.axes.readout import Head, SequenceHead
from foreword.backbone import Backbone
from foreword.data import Example
from foreword.recipe import HeadSpec, TaskId, WindowPool
from foreword.tasks.head import new_head
from foreword.tasks.pooled import PooledTask
from foreword.tasks.rows import Prediction, Row
from foreword.tasks.stating import check_windows, labels_of, templates_of
from foreword.tasks.text import Templates
from foreword.tasks.windows import of_one_label

_USUAL = HeadSpec()


@dataclass(frozen=True)
class Classification(PooledTask):
    """A label for a text, or for two.

    Attributes:
        text: how an example becomes text, and what gives way where it is too long.
        labels: in the order of the head's outputs.
        head: what the head is made of.
        windows: how windows of a text that is too long are told together; None: it is cut.
        stride: tokens that neighbouring windows share.
    """

    text: Templates
    labels: tuple[str, ...]
    head: HeadSpec = _USUAL
    windows: WindowPool | None = None
    stride: int = 128
    answer = "label"

    @classmethod
    def of(cls, stated: TaskId) -> Classification:
        """The task as an artifact states it."""
        text, labels = templates_of(stated), labels_of(stated)
        check_windows(stated, text)
        return cls(text, labels, stated.head, stated.windows, stated.stride)

    @classmethod
    def labels_of(cls, example: Example) -> tuple[str, ...]:
        """The label of an example."""
        return () if example.label is None else (example.label,)

    @property
    def metric_options(self) -> Mapping[str, Any]:
        """All labels, in their order."""
        return {"labels": self.labels}

    def readout(self, backbone: Backbone) -> Head:
        """A head with an output for each label."""
        return new_head(self.head, SequenceHead, backbone, len(self.labels))

    def right(self, example: Example) -> tuple[int, ...]:
        """The number of its label."""
        return (self.label_number(example, example.label),)

    def prediction(
        self,
        backbone: Backbone,  # noqa: ARG002
        example: Example,  # noqa: ARG002
        rows: Sequence[Row],  # noqa: ARG002
        outputs: Sequence[Tensor],
    ) -> Prediction:
        """The most probable label."""
        probabilities = dict(
            zip(self.labels, of_one_label(outputs, self.windows).tolist(), strict=True)
        )
        best = max(probabilities, key=probabilities.__getitem__)
        return Prediction(best, probabilities[best], probabilities)
