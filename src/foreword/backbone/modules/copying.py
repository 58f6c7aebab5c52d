"""A copy of a model of which chosen weights may move: all others are the original's own memory."""

from __future__ import annotations

import copy
from collections.abc import Collection

from torch import Tensor
from transformers import PreTrainedModel

from foreword.backbone.modules.forwards import unwrapped
from foreword.backbone.weights.quantization import tensors_of


def copied(model: PreTrainedModel, moving: Collection[str] = ()) -> PreTrainedModel:
    """The same modules anew, around the same tensors.

    Args:
        model: stays as it is.
        moving: names of parameters that are copied, and trained; a tied one has its first name.
    """
    chosen = set(moving)
    memo: dict[int, Tensor] = {
        id(tensor): tensor
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]
        if name not in chosen
    }
    for module in model.modules():
        memo |= {id(tensor): tensor for tensor in tensors_of(module)}
    new = copy.deepcopy(model, memo)
    unwrapped(new)  # another thread may recompute layers of the original just now
    for name, parameter in new.named_parameters():
        if name in chosen:
            parameter.requires_grad_()
    return new
