"""What every readout can do."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from foreword.backbone import Backbone, Call, read_once, way


class Readout(nn.Module):
    """Reads the answer off a backbone; what it trains for that is its own.

    Attributes:
        kind: the name by which artifacts call it.
        continues: whether the answer is text that goes on after the input.
    """

    kind: ClassVar[str]
    continues: ClassVar[bool] = False

    @property
    def weighs_examples(self) -> bool:
        """Whether an example's loss depends on the others of its batch."""
        return False

    @abstractmethod
    def loss(self, backbone: Backbone, call: Call) -> Tensor:
        """Negative log-likelihood in nats of everything that a batch should answer: `[N]`."""


class Predictor(Readout):
    """A readout that scores each row in forward passes, instead of writing.

    It reads states or logits at chosen positions of one forward pass, so that rows of different
    readouts can be in one pass (`read_together`).
    """

    reads: ClassVar[Literal["states", "logits"]]
    """What it reads: the last layer's states, or logits over the vocabulary."""

    @property
    def one_pass(self) -> bool:
        """Whether one forward pass is enough."""
        return True

    @abstractmethod
    def run(self, call: Call) -> Call:
        """The rows that are run to read those of a call."""

    @abstractmethod
    def positions(self, call: Call) -> Tensor:
        """Where the rows of `run(call)` are read: flat positions `[N]`."""

    @abstractmethod
    def answers(self, taken: Tensor, call: Call) -> list[Tensor]:
        """What each row of a call says, on the CPU, from states or logits `[N, …]`."""

    def read(self, backbone: Backbone, call: Call) -> list[Tensor]:
        """What each row of a batch says, on the CPU."""
        return self.answers(self.taken(backbone, call), call)

    def taken(self, backbone: Backbone, call: Call) -> Tensor:
        """States or logits `[N, …]` where a call is read."""
        return _taken(backbone, self.reads, self.run(call), self.positions(call))


def read_together(
    backbone: Backbone, parts: Sequence[tuple[Predictor, Call]]
) -> list[list[Tensor]]:
    """What the rows of several calls say, each read by a readout of its own, in as few forward
    passes as their prompts allow.

    Args:
        backbone: reads.
        parts: readouts and calls.

    Returns:
        For each part what `Predictor.read` gives.
    """
    answers: list[list[Tensor]] = [[] for _ in parts]
    groups: dict[tuple[object, ...], list[int]] = {}
    if len(parts) == 1:
        ((readout, call),) = parts
        return [readout.read(backbone, call)]
    for number, (readout, call) in enumerate(parts):
        if readout.one_pass:
            kind = readout.reads, way(backbone.geometry, call)
            groups.setdefault(kind, []).append(number)
        else:
            answers[number] = readout.read(backbone, call)
    for members in groups.values():
        runs = [parts[number][0].run(parts[number][1]) for number in members]
        together = Call.joined(runs, backbone.geometry.vocabulary)
        width, first, at = together.layout.input_ids.shape[1], 0, []
        for number, run in zip(members, runs, strict=True):
            own = run.layout.input_ids.shape[1]
            flat = parts[number][0].positions(parts[number][1])
            at.append((flat // own + first) * width + flat % own)
            first += run.rows
        taken = _taken(backbone, parts[members[0]][0].reads, together, torch.cat(at))
        shares = torch.split(taken, [len(one) for one in at])
        for number, share in zip(members, shares, strict=True):
            readout, call = parts[number]
            answers[number] = readout.answers(share, call)
    return answers


def _taken(
    backbone: Backbone, reads: Literal["states", "logits"], call: Call, at: Tensor
) -> Tensor:
    call, at = read_once(backbone, call, at)
    if reads == "logits":
        return backbone.logits(call, at)
    return backbone.hidden(call, at)
