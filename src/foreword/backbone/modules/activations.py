"""One kernel for the tanh approximation of GELU.

GPT-2 and its relatives name it `gelu_new`, which transformers computes from eight elementwise
operations (and as many backwards). torch has the same function as one; on `foreword/mini` a
training step takes about 0.83 of the time (`python bench/activation.py`). The values agree to
rounding.
"""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel
from transformers.activations import FastGELUActivation, NewGELUActivation

SLOW = (NewGELUActivation, FastGELUActivation)


def fuse_activations(model: PreTrainedModel) -> int:
    """Put torch's kernel where a model computes the approximation by hand; returns how often."""
    replaced = 0
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, SLOW):
                setattr(module, name, nn.GELU(approximate="tanh"))
                replaced += 1
    return replaced
