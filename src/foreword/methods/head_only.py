"""A head alone on the frozen backbone: what every prompt under a head is compared with."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from foreword.methods.base import StartedOptions, method


@method
class HeadOnly(StartedOptions):
    """Options of a head without a prompt."""

    paper: ClassVar[str] = "a linear probe"
    training_defaults: ClassVar[dict[str, Any]] = {
        "epochs": 3,
        "batch_size": 32,
        "learning_rate": 1e-3,
    }

    name: Literal["head-only"]
