"""Where training starts: the method's choice, put into the reparameterization; or an artifact's
tensors, put into prompt, head and moved weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from foreword.axes.injection.starts import InitSpec, Start
from foreword.axes.injection.starts import init_tokens as init_tokens
from foreword.axes.injection.starts import vocabulary_tokens as vocabulary_tokens
from foreword.axes.parts import Named, VirtualTokens
from foreword.tuned import TunedModel


@dataclass(frozen=True, eq=False)
class Trained:
    """What an artifact gives a training to start from.

    Attributes:
        named: the named tensors of its prompt.
        length: how many virtual tokens it has.
        otherwise: how virtual tokens start for which it has none.
        head: tensors of the readout, by name.
        delta: tensors of what moved, by name.
        notes: what there is to say of it, a line each.
    """

    named: Named
    length: int
    otherwise: InitSpec
    head: Mapping[str, Tensor] = field(default_factory=dict)
    delta: Mapping[str, Tensor] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def initialise(
    model: TunedModel,
    init: InitSpec,
    examples: Sequence[list[int]],
    labels: Sequence[str] = (),
    trained: Trained | None = None,
) -> float | None:
    """Start the virtual tokens where the method's options say.

    Args:
        model: as `compose` made it.
        init: the method's choice; a random start leaves the model as it is.
        examples: token lists of training examples (source and target), for `init.examples`.
        labels: the words of the task's classes, for `init: labels` that names none.
        trained: what an artifact gives, where training goes on from one.

    Returns:
        The mean squared error with which the reparameterization reproduces the chosen start, or
        None for the reparameterization's own random one.

    Raises:
        UserError: a text or a label has no tokens.
    """
    start = Start(model.backbone, model.injection, model.placement.length, examples, labels)
    if trained is not None:
        start = replace(start, trained=_as_long(model, start, trained))
        _put(model, trained)
    named = init.named(start)
    return None if named is None else model.reparam.fit(named)


def _as_long(model: TunedModel, start: Start, trained: Trained) -> Named:
    """The artifact's tensors with as many virtual tokens as the model has: its first ones, or all
    of them and then others."""
    missing = start.length - trained.length
    if not missing:
        return trained.named
    others: Named = {}
    if missing > 0:
        named = trained.otherwise.named(replace(start, length=missing))
        with torch.no_grad():
            others = model.reparam() if named is None else named
    result = dict(trained.named)
    for part in model.injection.parts(start.length):
        if isinstance(part, VirtualTokens):
            rows = part.join(trained.named)[: start.length]
            if missing > 0:
                more = part.join(others)[-missing:]
                rows = torch.cat([rows, more.to(rows)])
            result |= part.split(rows)
    return result


@torch.no_grad()
def _put(model: TunedModel, trained: Trained) -> None:
    """Give the readout and what moves the artifact's tensors, where it has some."""
    own = dict(model.readout.named_parameters())
    for name, tensor in trained.head.items():
        own[name].copy_(tensor)
    if trained.delta:
        model.delta.load(trained.delta)
