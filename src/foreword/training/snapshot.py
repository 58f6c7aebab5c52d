"""All that decides how a training goes on, as tensors and plain data, and back.

Parameters as they are trained (not folded), the optimizer's moments, the best prompt so far, the
scheduler, the place in the data and the random states. Every number comes back with its bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from foreword.errors import RunError
from foreword.training import randomness
from foreword.training.history import Best
from foreword.tuned import TunedModel

_SCHEDULER = ("last_epoch", "_step_count", "_last_lr")


def take(
    model: TunedModel, optimizer: Optimizer, scheduler: LRScheduler, best: Best
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors by name, on the CPU and apart from those that are trained; and plain data."""
    random_tensors, random_values = randomness.capture()
    tensors = {
        **_named("model", model.state_dict()),
        **_named("best", best.state),
        **_named("random", random_tensors),
    }
    for name, parameter in _trained(model).items():
        tensors |= _named(f"optimizer.{name}", optimizer.state.get(parameter, {}))
    state = scheduler.state_dict()
    values = {
        "best": best.as_json(),
        "scheduler": {name: state[name] for name in _SCHEDULER},
        "random": random_values,
    }
    return tensors, values


def put_back(
    tensors: Mapping[str, Tensor],
    values: Mapping[str, Any],
    model: TunedModel,
    optimizer: Optimizer,
    scheduler: LRScheduler,
    best: Best,
) -> None:
    """Give everything the state that `take` found, in its own type and place.

    Raises:
        RunError: the checkpoint is of another model.
    """
    current = model.state_dict()
    stored = _below("model", tensors)
    if {k: v.shape for k, v in stored.items()} != {k: v.shape for k, v in current.items()}:
        raise RunError("the checkpoint holds the parameters of another method or size")
    with torch.no_grad():
        for name, tensor in current.items():
            tensor.copy_(stored[name])
    kept = _below("best", tensors)
    best.load(values["best"], {k: _like(current[k], v) for k, v in kept.items()})
    for name, parameter in _trained(model).items():
        moments = _below(f"optimizer.{name}", tensors)
        if moments:
            optimizer.state[parameter] = {
                key: _like(parameter, value)
                if value.shape == parameter.shape and key != "step"
                else value.to(parameter.device, copy=True)
                for key, value in moments.items()
            }
    scheduler.load_state_dict({**scheduler.state_dict(), **values["scheduler"]})
    for group, rate in zip(optimizer.param_groups, values["scheduler"]["_last_lr"], strict=True):
        group["lr"] = rate
    randomness.restore(_below("random", tensors), values["random"])


def _trained(model: TunedModel) -> dict[str, Tensor]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def _like(model: Tensor, stored: Tensor) -> Tensor:
    """A copy in memory of torch's own, laid out as `model`: sums then run in the same order."""
    return torch.empty_like(model, dtype=stored.dtype).copy_(stored)


def _named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        f"{prefix}/{name}": tensor.detach().to("cpu", copy=True).contiguous()
        for name, tensor in tensors.items()
    }


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    start = f"{prefix}/"
    return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}
