"""The answer is read by a small trained layer off the last states of the backbone.

P-Tuning v2 (Liu et al. 2022, section 3.2): a classification head takes the verbalizer's place.
Which states it reads, the layout marks, so virtual tokens, padding and truncation move nothing.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from foreword.axes.readout.base import Predictor
from foreword.backbone import Backbone, Call
from foreword.backbone.layout import Layout


class StateReader(Predictor):
    """Reads the last layer's states of the tokens that a layout marks."""

    reads = "states"

    def run(self, call: Call) -> Call:
        """The rows themselves."""
        return call

    def positions(self, call: Call) -> Tensor:
        """Those of the marked tokens, row after row: `[N]`."""
        return _marks(call.layout).flatten().nonzero().squeeze(1)


class Head(StateReader):
    """A linear layer on the marked states, or a layer with tanh before it.

    Args:
        width: of the states.
        outputs: numbers it gives for each state.
        dropout: on the states, in training steps alone.
        hidden: width of a layer with tanh before the linear one; none if not given.
        drops_hidden: whether dropout acts on what that layer gives, and not on the states.
        bias: whether the last layer has one.
    """

    def __init__(
        self,
        width: int,
        outputs: int,
        *,
        dropout: float = 0.1,
        hidden: int | None = None,
        drops_hidden: bool = False,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.drops_hidden = drops_hidden
        before = [] if hidden is None else [nn.Linear(width, hidden), nn.Tanh()]
        self.layers = nn.Sequential(*before, nn.Linear(hidden or width, outputs, bias=bias))
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.02)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def logits(self, states: Tensor) -> Tensor:
        """From states `[N, width]` to `[N, outputs]`, in the head's own type."""
        active = self.training and torch.is_grad_enabled()
        first = next(self.layers.parameters())
        states = states.to(first.dtype)
        for at, layer in enumerate(self.layers):
            if at == (len(self.layers) - 1 if self.drops_hidden else 0):
                states = nn.functional.dropout(states, self.dropout, training=active)
            states = layer(states)
        return states


class SequenceHead(Head):
    """One label a row. Of several marked states a row (`pooling: mean`) it reads the mean.

    Attributes:
        temperature: what logits are divided by where it learns from probabilities; the loss is
            multiplied by its square (Hinton et al. 2015, section 2).
    """

    kind: ClassVar[str] = "sequence_head"

    temperature: float = 1.0

    def loss(self, backbone: Backbone, call: Call) -> Tensor:
        """Negative log-likelihood of each row's label, or cross-entropy with its probabilities:
        `[B]`."""
        logits, labels = self._rows(self.taken(backbone, call), call), _labels(call.layout)
        if not labels.is_floating_point():
            return nn.functional.cross_entropy(logits, labels, reduction="none")
        t = self.temperature
        shares = labels.view_as(logits).to(logits.dtype)
        return t**2 * nn.functional.cross_entropy(logits / t, shares, reduction="none")

    def answers(self, taken: Tensor, call: Call) -> list[Tensor]:
        """Probabilities of the labels: `[labels]` for each row."""
        return list(self._rows(taken, call).softmax(-1).cpu())

    def _rows(self, states: Tensor, call: Call) -> Tensor:
        return self.logits(pooled(states, call.layout))


class LabelsHead(SequenceHead):
    """Any number of labels a row: each is told or not, whatever the others are."""

    kind: ClassVar[str] = "labels_head"

    def loss(self, backbone: Backbone, call: Call) -> Tensor:
        """Binary cross-entropy of each label of each row: `[B labels]`."""
        logits = self._rows(self.taken(backbone, call), call).flatten()
        labels = _labels(call.layout).to(logits.dtype)
        return nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")

    def answers(self, taken: Tensor, call: Call) -> list[Tensor]:
        """The probability of each label: `[labels]` for each row."""
        return list(self._rows(taken, call).sigmoid().cpu())


class NumberHead(SequenceHead):
    """One number a row."""

    kind: ClassVar[str] = "number_head"

    def loss(self, backbone: Backbone, call: Call) -> Tensor:
        """Squared error of each row's number: `[B]`."""
        scores = self._rows(self.taken(backbone, call), call).flatten()
        return (scores - _labels(call.layout).to(scores.dtype)).square()

    def answers(self, taken: Tensor, call: Call) -> list[Tensor]:
        """The number of each row: `[1]`."""
        return list(self._rows(taken, call).cpu())


class TokenHead(Head):
    """One label for each marked token: a word's first."""

    kind: ClassVar[str] = "token_head"

    def loss(self, backbone: Backbone, call: Call) -> Tensor:
        """Negative log-likelihood of each token's label: `[N]`."""
        logits = self.logits(self.taken(backbone, call))
        return nn.functional.cross_entropy(logits, _labels(call.layout), reduction="none")

    def answers(self, taken: Tensor, call: Call) -> list[Tensor]:
        """Probabilities of the labels: `[marked tokens, labels]` for each row."""
        counts = _marks(call.layout).sum(1).tolist()
        return list(torch.split(self.logits(taken).softmax(-1).cpu(), counts))


class SpanHead(Head):
    """Where an answer begins and ends, among the marked tokens (Devlin et al. 2019, section 4.2).

    A row's two labels are the ordinals of its first and last token among the marked ones. The first
    marked token stands for "no answer here".
    """

    kind: ClassVar[str] = "span_head"

    def loss(self, backbone: Backbone, call: Call) -> Tensor:
        """Negative log-likelihood of each row's begin and end: `[2 B]`."""
        logits = self._rows(self.taken(backbone, call), call).flatten(0, 1)
        return nn.functional.cross_entropy(logits, _labels(call.layout), reduction="none")

    def answers(self, taken: Tensor, call: Call) -> list[Tensor]:
        """Log-probabilities of begin and end: `[2, marked tokens]` for each row."""
        log_shares = self._rows(taken, call).log_softmax(-1).cpu()
        counts = _marks(call.layout).sum(1).tolist()
        return [row[:, :count] for row, count in zip(log_shares, counts, strict=True)]

    def _rows(self, states: Tensor, call: Call) -> Tensor:
        """Logits `[B, 2, most marked tokens]`, minus infinity where a row has fewer."""
        flat = self.logits(states)
        marks = _marks(call.layout)
        rows = nn.utils.rnn.pad_sequence(
            list(torch.split(flat, marks.sum(1).tolist())),
            batch_first=True,
            padding_value=-torch.inf,
        )
        return rows.transpose(1, 2)


def pooled(states: Tensor, layout: Layout) -> Tensor:
    """The mean of each row's marked states: from `[N, width]` to `[B, width]`."""
    marks = _marks(layout)
    counts = marks.sum(1)
    if len(states) > len(counts):
        rows = marks.nonzero()[:, 0].to(states.device)
        sums = states.new_zeros(len(counts), states.shape[1]).index_add(0, rows, states)
        states = sums / counts[:, None].to(states)
    return states


def _marks(layout: Layout) -> Tensor:
    assert layout.marks is not None, "a head reads marked tokens"
    return layout.marks


def _labels(layout: Layout) -> Tensor:
    assert layout.labels is not None, "a head is trained on labels"
    return layout.labels
