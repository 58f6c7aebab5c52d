"""The answer is one of several texts that a row brings along, or some of them.

Each choice is a row of its own; those of one question stand together, the question's first choice
first. What a row's labels say of it: its number among the question's choices, whether it is right,
and what its log-likelihood is divided by.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from foreword.axes.readout.base import Predictor
from foreword.axes.readout.head import SequenceHead
from foreword.backbone import Backbone, Call
from foreword.backbone.layout import Layout


@dataclass(frozen=True)
class Weighed:
    """Which rows are the choices of one question.

    Attributes:
        question: of each row the number of its question: `[B]`.
        right: whether each row is right: `[B]` bool.
        divisors: what each row's log-likelihood is divided by: `[B]`.
    """

    question: Tensor
    right: Tensor
    divisors: Tensor

    @classmethod
    def of(cls, layout: Layout) -> Weighed:
        """What the labels of a layout say."""
        assert layout.labels is not None, "choices are trained on which of them is right"
        number, right, divisors = layout.labels.view(-1, 3).unbind(1)
        return cls((number == 0).long().cumsum(0) - 1, right.bool(), divisors)

    def loss(self, scores: Tensor) -> Tensor:
        """Negative log-likelihood of each question's right choices among all of its own.

        Args:
            scores: of each row, `[B]`.
        """
        count = int(self.question[-1]) + 1
        whole = _logsumexp(scores, self.question, count)
        chosen = scores.masked_fill(~self.right, -torch.inf)
        return whole - _logsumexp(chosen, self.question, count)


class ChoiceHead(SequenceHead):
    """A number for each choice; the higher, the likelier (Devlin et al. 2019, section 4.4).

    Args:
        several: whether any number of a question's choices may be right, so that each is judged by
            itself; otherwise they are weighed against each other.
    """

    kind: ClassVar[str] = "choice_head"

    several: bool = False

    def loss(self, backbone: Backbone, call: Call) -> Tensor:
        """Negative log-likelihood of each question's right choice `[questions]`, or, where several
        may be right, of what is said of each choice `[B]`."""
        scores = self._rows(self.taken(backbone, call), call).flatten()
        weighed = Weighed.of(call.layout)
        if self.several:
            return nn.functional.binary_cross_entropy_with_logits(
                scores, weighed.right.to(scores.dtype), reduction="none"
            )
        return weighed.loss(scores)

    def answers(self, taken: Tensor, call: Call) -> list[Tensor]:
        """The number of each row: `[1]`."""
        return list(self._rows(taken, call).cpu())


class Likelihood(Predictor):
    """How likely the backbone finds each choice as what goes on after the input.

    A choice's log-likelihood is the sum over its tokens, as lm-evaluation-harness computes it.
    """

    kind: ClassVar[str] = "likelihood"
    continues: ClassVar[bool] = True
    reads = "logits"

    def run(self, call: Call) -> Call:
        """The rows themselves."""
        return call

    def positions(self, call: Call) -> Tensor:
        """Where the tokens of the choices are predicted, row after row: `[N]`."""
        return call.layout.reading_positions()

    def loss(self, backbone: Backbone, call: Call) -> Tensor:
        """Negative log-likelihood of each question's right choice among all of its own
        `[questions]`; of each token `[N]` where rows do not say which choice they are."""
        logs = self._tokens(self.taken(backbone, call), call)
        if call.layout.labels is None:
            return -logs
        weighed = Weighed.of(call.layout)
        return weighed.loss(self._sums(logs, call) / weighed.divisors.to(logs.dtype))

    def answers(self, taken: Tensor, call: Call) -> list[Tensor]:
        """The log-likelihood of each row's choice: `[1]`."""
        return list(self._sums(self._tokens(taken, call), call)[:, None].cpu())

    def _tokens(self, logits: Tensor, call: Call) -> Tensor:
        logits = logits.float() if logits.element_size() < 4 else logits
        ids = call.layout.target_ids().to(logits.device)
        return -nn.functional.cross_entropy(logits, ids, reduction="none")

    def _sums(self, logs: Tensor, call: Call) -> Tensor:
        rows = call.layout.target_rows().to(logs.device)
        return logs.new_zeros(call.rows).index_add(0, rows, logs)


def _logsumexp(scores: Tensor, group: Tensor, count: int) -> Tensor:
    """Of the scores of each of so many groups: `[count]`."""
    group = group.to(scores.device)
    largest = scores.detach().new_full((count,), -torch.inf)
    largest = largest.scatter_reduce(0, group, scores.detach(), "amax")
    sums = scores.new_zeros(count).index_add(0, group, (scores - largest[group]).exp())
    return sums.log() + largest
