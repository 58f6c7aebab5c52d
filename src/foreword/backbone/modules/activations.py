"""One kernel for the tanh approximation of GELU.

GPT-2 and its relatives name it `gelu_new`, which transformers computes from eight elementwise
operations (and as many backwards). torch has the same function as one; on `foreword/mini` a
training step takes about 0.83 of the time (`python bench/activation.py`). The values agree to
rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.activations import FastGELUActivation, NewGELUActivation

from foreword.backbone.modules.forwards import Forward, Shared

SLOW = (NewGELUActivation, FastGELUActivation)
_OWN = "_foreword_own"
"""The attribute under which torch's kernel knows the module that it replaced."""
_plain = Shared()


def fuse_activations(model: PreTrainedModel) -> int:
    """Put torch's kernel where a model computes the approximation by hand; returns how often."""
    replaced = 0
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, SLOW):
                kernel = nn.GELU(approximate="tanh")
                vars(kernel)[_OWN] = child
                setattr(module, name, kernel)
                replaced += 1
    return replaced


@contextmanager
def unfused(model: PreTrainedModel) -> Iterator[None]:
    """While it lasts, a model computes the approximation by hand again."""
    kernels = [module for module in model.modules() if _OWN in vars(module)]

    def by_hand(kernel: nn.Module, _: Forward) -> Forward:
        own: nn.Module = vars(kernel)[_OWN]

        def run(*given: Any, **named: Any) -> Any:
            return own(*given, **named)

        return run

    with _plain.on(kernels, by_hand):
        yield
