"""What a task whose answer is told gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from foreword.backbone import Backbone, stored_pooler
from foreword.errors import DataError, UserError
from foreword.layout import Pair
from foreword.readout import Head, Told
from foreword.tasks import Example
from foreword.text import Room

Pooling = Literal["auto", "first", "last", "mean", "prompt"]
AnyHead = TypeVar("AnyHead", bound=Head)


@dataclass(frozen=True)
class HeadOptions:
    """What a head is made of.

    Attributes:
        dropout: on the states it reads.
        hidden: width of a layer with tanh before the last one; none where it is None.
        pooling: which state answers for a text: the first (an encoder's), the last (a decoder's),
            the mean of all, or that of the first virtual token in an encoder's input (PEFT's).
        pooler: whether the layer before the last one is the backbone's own pooler, and moves.
    """

    dropout: float = 0.1
    hidden: int | None = None
    pooling: Pooling = "auto"
    pooler: Literal["none", "frozen", "trained"] = "none"

    def made(self, kind: type[AnyHead], backbone: Backbone, outputs: int) -> AnyHead:
        """A new head for a backbone.

        Raises:
            BackboneError: the backbone is an encoder-decoder.
        """
        backbone.check_takes_head()
        if self.pooler == "none":
            return kind(backbone.hidden_width, outputs, dropout=self.dropout, hidden=self.hidden)
        width = backbone.hidden_width
        head = kind(width, outputs, dropout=self.dropout, hidden=width, drops_hidden=True)
        head.layers[0].requires_grad_(self.pooler == "trained")
        return head

    def start(self, head: Head, backbone: Backbone) -> None:
        """Give a new head the backbone's pooler, where it has one.

        Raises:
            UserError: the backbone has none.
        """
        if self.pooler == "none":
            return
        found = stored_pooler(backbone) if backbone.geometry.kind == "encoder" else None
        width = backbone.hidden_width
        if found is None or found[0].shape != (width, width):
            raise UserError(
                f"task.head.pooler: '{backbone.name}' ({backbone.model.config.model_type}) holds "
                "no pooler, or one of another width; leave `pooler` out, or give `hidden` for a "
                "new layer"
            )
        first = head.layers[0]
        assert isinstance(first, nn.Linear)
        with torch.no_grad():
            first.weight.copy_(found[0])
            first.bias.copy_(found[1])


@dataclass(frozen=True)
class Answered:
    """What a head says of one example.

    Attributes:
        answer: the label; one tag a word, None for a word that was not read since it has no token;
            or the text of a span, "" for no answer.
        probability: of the answer; of each tag, None where there is none; of a span's begin and
            end in its window.
        probabilities: of every label, where the answer is one.
        start: where a span begins, in characters of its context; None for no answer.
        score: of a span: the logarithm of its probability less that of no answer.
        truncated: whether the input was cut to fit.
    """

    answer: str | tuple[str | None, ...]
    probability: float | tuple[float | None, ...]
    probabilities: dict[str, float] = field(default_factory=dict)
    start: int | None = None
    score: float | None = None
    truncated: bool = False


@dataclass(frozen=True)
class Window:
    """One row that a head reads of an example.

    Attributes:
        pair: its tokens, marks and labels.
        cut: whether something of the example does not stand in it, nor in another window.
        at: for each marked token what it stands for: the number of a word, or characters of a
            context; None for "no answer".
    """

    pair: Pair
    cut: bool = False
    at: tuple[int | tuple[int, int] | None, ...] = ()


class HeadTask(ABC):
    """What a task of any kind gives."""

    answer: Literal["label", "tags", "span", "word"]
    labels: tuple[str, ...]

    @abstractmethod
    def readout(self, backbone: Backbone) -> Told:
        """A new readout for a backbone.

        Raises:
            UserError: the backbone cannot answer this task.
        """

    @abstractmethod
    def windows(
        self, backbone: Backbone, example: Example, room: Room, *, labelled: bool = True
    ) -> list[Window]:
        """An example as rows; with labels where it is trained on.

        Raises:
            DataError: it lacks what the task asks for, or has a label that is not known.
        """

    @abstractmethod
    def told(
        self,
        backbone: Backbone,
        example: Example,
        windows: Sequence[Window],
        read: Sequence[Tensor],
    ) -> Answered:
        """The answer to an example, from what was read in each of its windows."""

    def pairs(
        self, backbone: Backbone, example: Example, room: Room
    ) -> Iterator[tuple[Pair, bool]]:
        """The rows that an example is trained on, and whether each was cut."""
        for window in self.windows(backbone, example, room):
            yield window.pair, window.cut

    def label(self, example: Example, label: str | None) -> int:
        """The number of a label.

        Raises:
            DataError: the example has none, or one that training has not seen.
        """
        if label not in self.labels:
            raise DataError(
                f"{example.where}: the label {label!r} is none of {', '.join(self.labels)}; "
                "name every label in task.labels"
            )
        return self.labels.index(label)
