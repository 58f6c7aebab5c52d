"""What is measured during training: the loss on held-out examples, and a score."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from foreword.backbone.layout import Layout, Pair
from foreword.backbone.stored_pairs import lengths
from foreword.tuned import TunedModel


def dev_loss(
    model: TunedModel,
    pairs: Sequence[Pair],
    batch_size: int = 32,
    check: Callable[[], None] = lambda: None,
) -> float:
    """Mean negative log-likelihood in nats per target token over held-out examples.

    `check` is called before each batch; what it raises ends the work.
    """
    order = lengths(pairs).argsort(kind="stable").tolist()
    nats = tokens = 0.0
    with torch.no_grad():
        for start in range(0, len(order), batch_size):
            check()
            nll = model(lay_out(model, pairs, order[start : start + batch_size]))
            nats, tokens = nats + nll.double().sum().item(), tokens + nll.numel()
    return nats / tokens


def lay_out(model: TunedModel, pairs: Sequence[Pair], rows: Sequence[int]) -> Layout:
    """The pairs of these numbers as a batch, on the model's device."""
    return model.lay_out([pairs[i] for i in rows])
