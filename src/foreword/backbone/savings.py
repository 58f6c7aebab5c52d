"""Work that is left out since it changes no number, done all the same where that is asked for: to
compare with, or to look for a mistake.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from foreword.backbone.leaving_out import Saving, doing
from foreword.backbone.modules import activations, tables


@contextmanager
def without(model: PreTrainedModel, savings: Collection[Saving]) -> Iterator[None]:
    """While it lasts, forward passes of this thread do the work that these savings leave out.

    Those of the activation and of gradients change the model, for all threads.

    Args:
        model: frozen.
        savings: the ones that are turned off.
    """
    with ExitStack() as changes:
        if "activation" in savings:
            changes.enter_context(activations.unfused(model))
        if "gradients" in savings:
            for table in tables.of_words(model):
                changes.callback(table.register_forward_hook(_with_gradient).remove)
        changes.enter_context(doing(savings))
        yield


def _with_gradient(_: nn.Module, __: Any, embeddings: Tensor) -> None:
    """Let the backward pass go down to the embeddings of words, which nothing trains."""
    if torch.is_grad_enabled() and not embeddings.requires_grad:
        embeddings.requires_grad_()
