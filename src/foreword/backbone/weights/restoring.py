"""What foreword changes about a model of somebody else's, and how the model gets it back.

Taking a model as a backbone sets its attention, replaces activations, freezes weights, registers
hooks and puts marks on modules. A `Snapshot` from before undoes that. The weights themselves are
no part of it: nothing here changes them, and where they lie may have changed since.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from torch import nn
from transformers import PreTrainedModel

TABLES = (
    "_modules",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
)
"""What torch keeps of a module by key: its children and its hooks."""
FLAGS = ("training", "support_avx512bf16_for_cpu")
"""Attributes that taking a model as a backbone sets."""
MARKS = ("foreword_", "_foreword_")
"""How the names of attributes begin that foreword puts on modules."""


class Snapshot:
    """A model as it was when this was made.

    Args:
        model: any; it is not changed.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self._modules = [
            (
                module,
                {name: dict(vars(module)[name]) for name in TABLES},
                {name: vars(module)[name] for name in FLAGS if name in vars(module)},
                {name: value for name, value in vars(module).items() if name.startswith(MARKS)},
            )
            for module in model.modules()
        ]
        self._moving = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
        self._configs = [(config, dict(vars(config))) for config in _configs(model)]
        self._generation = getattr(model, "generation_config", None)
        self._generating = copy.deepcopy(self._generation)

    def restore_generation(self) -> None:
        """Give the model its own settings of `generate` back."""
        if self._generation is not None:
            vars(self._generation).clear()
            vars(self._generation).update(vars(copy.deepcopy(self._generating)))
        self.model.generation_config = self._generation

    def restore(self) -> None:
        """Bring all of it back."""
        for module, tables, flags, marks in self._modules:
            _restore(module, tables, flags, marks)
        for parameter, moving in self._moving:
            parameter.requires_grad_(moving)
        for config, before in self._configs:
            vars(config).clear()
            vars(config).update(before)
        self.restore_generation()


def _restore(
    module: nn.Module, tables: dict[str, Any], flags: dict[str, Any], marks: dict[str, Any]
) -> None:
    own = vars(module)
    for name, before in tables.items():
        own[name].clear()
        own[name].update(before)
    own.update(flags)
    for name in [name for name in own if name.startswith(MARKS)]:
        del own[name]
    own.update(marks)


def _configs(model: PreTrainedModel) -> Iterator[Any]:
    """Every config of a model and its parts, each once."""
    waiting = [module.config for module in model.modules() if isinstance(module, PreTrainedModel)]
    known: set[int] = set()
    while waiting:
        config = waiting.pop()
        if config is None or id(config) in known:
            continue
        known.add(id(config))
        waiting += [getattr(config, name, None) for name in getattr(config, "sub_configs", {})]
        yield config
