"""Where training starts: the method's choice, put into the reparameterization."""

from __future__ import annotations

from collections.abc import Sequence

from foreword.axes.injection.starts import InitSpec, Start
from foreword.axes.injection.starts import init_tokens as init_tokens
from foreword.axes.injection.starts import vocabulary_tokens as vocabulary_tokens
from foreword.tuned import TunedModel


def initialise(
    model: TunedModel,
    init: InitSpec,
    examples: Sequence[list[int]],
    labels: Sequence[str] = (),
) -> float | None:
    """Start the virtual tokens where the method's options say.

    Args:
        model: as `compose` made it.
        init: the method's choice; a random start leaves the model as it is.
        examples: token lists of training examples (source and target), for `init.examples`.
        labels: the words of the task's classes, for `init: labels` that names none.

    Returns:
        The mean squared error with which the reparameterization reproduces the chosen start, or
        None for the reparameterization's own random one.

    Raises:
        UserError: a text or a label has no tokens.
    """
    start = Start(model.backbone, model.injection, model.placement.length, examples, labels)
    named = init.named(start)
    return None if named is None else model.reparam.fit(named)
