"""Tasks whose head reads one state for an input of one text or two."""

from __future__ import annotations

from abc import abstractmethod

from foreword.axes.readout import Head, Readout
from foreword.backbone import Backbone
from foreword.backbone.layout import Pair
from foreword.data import Example
from foreword.recipe import HeadSpec, WindowPool
from foreword.tasks.head import marks_of, start_head
from foreword.tasks.reading import ReadTask
from foreword.tasks.rows import Row
from foreword.tasks.text import Templates
from foreword.tuned import TunedModel


class PooledTask(ReadTask):
    """A head's answer for a text, or for two.

    Attributes:
        text: how an example becomes text, and what gives way where it is too long.
        head: what the head is made of.
        windows: how windows of a text that is too long are told together; None: it is cut.
        stride: tokens that neighbouring windows share.
    """

    text: Templates
    head: HeadSpec
    windows: WindowPool | None = None
    stride: int = 128

    @abstractmethod
    def right(self, example: Example) -> tuple[int, ...] | tuple[float, ...]:
        """What the head should say of an example, as `Pair.labels`.

        Raises:
            DataError: the example does not say it, or says something that the task does not know.
        """

    def start(self, readout: Readout, backbone: Backbone) -> None:
        """Give a new head the backbone's pooler, where the task asks for it."""
        assert isinstance(readout, Head)
        start_head(self.head, readout, backbone)

    def rows(
        self,
        model: TunedModel,
        example: Example,
        *,
        labelled: bool = True,
        reserve: int = 0,  # noqa: ARG002
    ) -> list[Row]:
        """One row, or one for each window; each window learns what is right of the whole."""
        backbone, parts = model.backbone, [example]
        if self.windows is not None:
            parts = self.text.windows(backbone, example, model.room, self.stride)
        labels = self.right(example) if labelled else ()
        rows = []
        for part in parts:
            ids, segments, cut = self.text.read(backbone, part, model.room)
            marks = marks_of(self.head, backbone, ids)
            rows.append(Row(Pair(ids, [], marks, labels, segments), cut))
        return rows
