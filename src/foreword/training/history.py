"""What happened in a training, and which of its prompts is the best so far."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from foreword.names import METRICS
from foreword.recipe import TrainingSpec
from foreword.training.fitting import Fit
from foreword.tuned import TunedModel


@dataclass
class History:
    """What happened, step by step.

    Attributes:
        steps: `{"step", "loss", "learning_rate", "gradient_norm"}` of each optimizer step; the loss
            is in nats per target token (per label, where labels are told). With "sequence_sum"
            there is also "sequence_loss", the loss that is trained: nats per sequence.
        evaluations: `{"step", "loss"}`, with "bleu" where that was asked for; the loss is in nats
            per target token (per label), as that of `steps`.
        best_step: the step whose prompt was kept.
        seconds: time of the training, evaluations included.
        evaluation_seconds: how much of it evaluations took.
        stopped_early: whether patience ended it.
        fit: how it was made to fit into memory.
    """

    steps: list[dict[str, float]] = field(default_factory=list)
    evaluations: list[dict[str, float]] = field(default_factory=list)
    best_step: int = 0
    seconds: float = 0.0
    evaluation_seconds: float = 0.0
    stopped_early: bool = False
    fit: Fit | None = None


class Best:
    """Remembers the parameters of the best evaluation, or of the last where nothing is compared.

    Attributes:
        seen: the step of the last evaluation.
        step: the step of the best one.
        waited: how many evaluations came after it.
        state: the parameters at it.
    """

    def __init__(self, model: TunedModel, spec: TrainingSpec) -> None:
        self.model, self.by = model, spec.best_by
        known = None if self.by is None else METRICS.get(self.by)
        high = known is not None and known.better == "high"
        self._sign = -1 if high else 1
        self.seen, self.step, self.value, self.waited = 0, 0, math.inf, 0
        self.state: dict[str, Tensor] = {}

    def see(self, evaluation: dict[str, float]) -> None:
        """Compare, and keep the parameters as they are now if they are better."""
        value = evaluation.get(self.by) if self.by else None
        cost = -math.inf if value is None else value * self._sign
        self.seen = int(evaluation["step"])
        if cost < self.value or value is None:
            self.value, self.step, self.waited = cost, self.seen, 0
            self.state = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        else:
            self.waited += 1

    def restore(self) -> None:
        """Put the best parameters into the model."""
        self.model.load_state_dict(self.state)

    def as_json(self) -> dict[str, Any]:
        """All but the parameters; the value may be infinite, which JSON does not know."""
        return {
            "seen": self.seen,
            "step": self.step,
            "value": repr(self.value),
            "waited": self.waited,
        }

    def load(self, stored: dict[str, Any], state: dict[str, Tensor]) -> None:
        """Take what `as_json` gave, and the parameters."""
        self.seen, self.step, self.waited = stored["seen"], stored["step"], stored["waited"]
        self.value, self.state = float(stored["value"]), state
