"""The answer is a number that a head tells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import Any

from torch import Tensor

from foreword.axes.readout import Head, NumberHead
from foreword.backbone import Backbone
from foreword.backbone.layout import Pair
from foreword.data import Example
from foreword.errors import DataError
from foreword.recipe import HeadSpec, TaskId, TaskSpec
from foreword.tasks.head import new_head
from foreword.tasks.pooled import PooledTask
from foreword.tasks.rows import Prediction, Row
from foreword.tasks.stating import templates_of
from foreword.tasks.text import Templates

_USUAL = HeadSpec()


@dataclass(frozen=True)
class Rating(PooledTask):
    """A number for a text, or for two.

    Attributes:
        text: how an example becomes text, and what gives way where it is too long.
        head: what the head is made of.
        mean: what is taken off a number before the head learns it.
        deviation: what it is divided by then.
    """

    text: Templates
    head: HeadSpec = _USUAL
    mean: float = 0.0
    deviation: float = 1.0
    labels = ()
    answer = "number"

    @classmethod
    def of(cls, stated: TaskId) -> Rating:
        """The task as an artifact states it."""
        head = stated.head
        return cls(templates_of(stated), head, stated.mean, stated.deviation)

    @classmethod
    def settled_by(cls, examples: Sequence[Example], spec: TaskSpec) -> dict[str, Any]:
        """Mean and standard deviation of the numbers.

        Raises:
            DataError: all of them are the same.
        """
        numbers = [example.number for example in examples if example.number is not None]
        if not numbers or not spec.standardise:
            return {}
        deviation = pstdev(numbers)
        if not deviation:
            raise DataError(
                f"task.data.train: all {len(numbers):,} numbers are {numbers[0]:g}, so there is "
                "nothing to learn"
            )
        return {"mean": fmean(numbers), "deviation": deviation}

    def readout(self, backbone: Backbone) -> Head:
        """A head with one output."""
        return new_head(self.head, NumberHead, backbone, 1)

    def right(self, example: Example) -> tuple[float, ...]:
        """Its number as the head learns it."""
        if example.number is None:
            raise DataError(f"{example.where}: has no number to learn from")
        return ((example.number - self.mean) / self.deviation,)

    def prediction(
        self,
        backbone: Backbone,  # noqa: ARG002
        example: Example,  # noqa: ARG002
        rows: Sequence[Row],  # noqa: ARG002
        outputs: Sequence[Tensor],
    ) -> Prediction:
        """The number as the data have them."""
        return Prediction(float(outputs[0].double()) * self.deviation + self.mean)

    def read_at(self, backbone: Backbone, row: Row) -> tuple[list[str], list[str]]:
        """The marked tokens, and the number that is right there."""
        marked, _ = super().read_at(backbone, Row(Pair(row.pair.source, [], row.pair.marks)))
        return marked, [f"{label * self.deviation + self.mean:g}" for label in row.pair.labels]
