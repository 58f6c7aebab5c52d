"""The training loop, on Accelerate.

A batch is the batch of all processes together: each takes its share of the rows, and the loss is
divided by the tokens (or sequences) of the whole optimizer step. So the same recipe trains the same
prompt with one process or two, and with a batch at once or in parts, as far as floats can.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from transformers import get_scheduler

from foreword.errors import RunError, UserError
from foreword.layout import Layout
from foreword.progress import Progress, Silent
from foreword.recipe import TrainingSpec
from foreword.training.batching import LengthBatches, Pair
from foreword.training.hardware import Hardware
from foreword.tuned import TunedModel


@dataclass
class History:
    """What happened, step by step.

    Attributes:
        steps: `{"step", "loss", "learning_rate", "gradient_norm"}` of each optimizer step; the loss
            is in nats per target token, or per sequence with "sequence_sum".
        evaluations: `{"step", "loss"}`, with "bleu" where that was asked for; the loss is in nats
            per target token.
        best_step: the step whose prompt was kept.
        seconds: time of the training, evaluations included.
        stopped_early: whether patience ended it.
    """

    steps: list[dict[str, float]] = field(default_factory=list)
    evaluations: list[dict[str, float]] = field(default_factory=list)
    best_step: int = 0
    seconds: float = 0.0
    stopped_early: bool = False


def train(
    model: TunedModel,
    pairs: Sequence[Pair],
    spec: TrainingSpec,
    *,
    dev: Sequence[Pair] = (),
    score: Callable[[TunedModel], float] | None = None,
    seed: int = 0,
    hardware: Hardware | None = None,
    progress: Progress | None = None,
    on_step: Callable[[dict[str, float]], None] = lambda _: None,
) -> History:
    """Train a model's parameters in place; at the end it holds the best prompt.

    Args:
        model: its trainable parameters are what moves.
        pairs: training examples.
        spec: the `training` section of a recipe.
        dev: held-out examples for the loss during training.
        score: what `best_by: bleu` asks for.
        seed: decides the order of examples.
        hardware: where it runs; made from the model's device if not given.
        progress: told about each step.
        on_step: called with each entry of `History.steps`.

    Raises:
        UserError: there are no pairs.
        RunError: a loss is not finite.
    """
    hardware = hardware or Hardware.of(model.backbone.device.type, spec.precision)
    progress = progress or Silent()
    if not pairs:
        raise UserError("there is nothing to train on: no training pairs")
    batches = LengthBatches([p.length for p in pairs], spec.batch_size, spec.accumulation, seed)
    total = spec.steps or max(1, round((spec.epochs or 1) * batches.steps_per_epoch))
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad],
        lr=spec.learning_rate,
        betas=spec.betas,
        weight_decay=spec.weight_decay,
        fused=True,
    )
    scheduler = get_scheduler(
        "constant_with_warmup" if spec.schedule == "constant" else spec.schedule,
        optimizer,
        num_warmup_steps=_warmup(spec, total),
        num_training_steps=total,
    )
    wrapped, optimizer = hardware.accelerator.prepare(model, optimizer)
    history, best = History(), _Best(model, spec)
    started = time.monotonic()
    progress.begin("train", total)
    for number, step in enumerate(islice(batches.steps(), total), start=1):
        rate = scheduler.get_last_lr()[0]
        loss, norm = _one_step(wrapped, model, pairs, step, spec, hardware, optimizer)
        _finite("loss", loss, number, spec)
        scheduler.step()
        entry = {"step": number, "loss": loss, "learning_rate": rate, "gradient_norm": norm}
        history.steps.append(entry)
        on_step(entry)
        hardware.log({"loss": loss, "learning_rate": rate}, number)
        progress.advance(1, f"loss {loss:.3f}")
        if number == total or (spec.evaluate_every and number % spec.evaluate_every == 0):
            evaluation = _evaluation(model, dev, score, spec, hardware, number)
            _finite("development loss", evaluation.get("loss", 0.0), number, spec)
            history.evaluations += [evaluation] if len(evaluation) > 1 else []
            hardware.log({f"dev/{k}": v for k, v in evaluation.items() if k != "step"}, number)
            best.see(evaluation)
            if spec.patience is not None and best.waited >= spec.patience:
                history.stopped_early = True
                break
    hardware.accelerator.unwrap_model(wrapped, keep_fp32_wrapper=False)
    best.restore()
    history.best_step = best.step
    history.seconds = time.monotonic() - started
    return history


def _finite(what: str, value: float, step: int, spec: TrainingSpec) -> None:
    if not math.isfinite(value):
        raise RunError(
            f"the {what} became {value} at step {step}; try a lower training.learning_rate "
            f"(now {spec.learning_rate}), or training.warmup"
        )


def dev_loss(model: TunedModel, pairs: Sequence[Pair], batch_size: int = 64) -> float:
    """Mean negative log-likelihood in nats per target token over held-out examples."""
    order = sorted(range(len(pairs)), key=lambda i: pairs[i].length)
    nats = tokens = 0.0
    with torch.no_grad():
        for start in range(0, len(order), batch_size):
            nll = model(_layout(model, pairs, order[start : start + batch_size]))
            nats, tokens = nats + nll.double().sum().item(), tokens + nll.numel()
    return nats / tokens


def _one_step(
    wrapped: Callable[[Layout], Tensor],
    model: TunedModel,
    pairs: Sequence[Pair],
    step: list[list[int]],
    spec: TrainingSpec,
    hardware: Hardware,
    optimizer: Any,
) -> tuple[float, float]:
    """One optimizer step over one or more batches: the loss, and the gradient's norm."""
    rows = [i for batch in step for i in batch]
    whole = (
        sum(len(pairs[i].target) for i in rows) if spec.loss == "token_mean" else float(len(rows))
    )
    parts: list[Tensor] = []
    for last, share in _shares(step, hardware):
        nll = wrapped(_layout(model, pairs, share.rows))
        part = nll.sum() * (share.weight / whole)
        sync = nullcontext() if last else hardware.accelerator.no_sync(wrapped)
        with sync:
            hardware.accelerator.backward(part * hardware.processes)
        parts.append(part.detach())
    norm = hardware.accelerator.clip_grad_norm_(
        model.parameters(), math.inf if spec.clip is None else spec.clip
    )
    optimizer.step()
    optimizer.zero_grad()
    return hardware.sum(torch.stack(parts).sum()).item(), float(norm)


@dataclass(frozen=True)
class _Share:
    rows: list[int]
    weight: float


def _shares(step: list[list[int]], hardware: Hardware) -> Iterator[tuple[bool, _Share]]:
    """This process's rows of each batch; one without any takes part with weight 0."""
    for i, batch in enumerate(step):
        rows = batch[hardware.rank :: hardware.processes]
        yield i == len(step) - 1, _Share(rows or batch[:1], 1.0 if rows else 0.0)


def _layout(model: TunedModel, pairs: Sequence[Pair], rows: Sequence[int]) -> Layout:
    return model.placement.layout(
        [pairs[i].source for i in rows],
        [pairs[i].target for i in rows],
        pad_id=model.backbone.tokens.pad_id,
    ).to(model.backbone.device)


def _warmup(spec: TrainingSpec, total: int) -> int:
    return round(spec.warmup * total) if spec.warmup < 1 else round(spec.warmup)


def _evaluation(
    model: TunedModel,
    dev: Sequence[Pair],
    score: Callable[[TunedModel], float] | None,
    spec: TrainingSpec,
    hardware: Hardware,
    step: int,
) -> dict[str, float]:
    """Every process evaluates alike: parameters are equal, so nothing need be sent."""
    found: dict[str, float] = {"step": step}
    with hardware.accelerator.autocast():
        if dev:
            found["loss"] = dev_loss(model, dev)
        if spec.best_by == "bleu" and score is not None:
            found["bleu"] = score(model)
    return found


class _Best:
    """Remembers the parameters of the best evaluation, or of the last where nothing is compared."""

    def __init__(self, model: TunedModel, spec: TrainingSpec) -> None:
        self.model, self.by = model, spec.best_by
        self.step, self.value, self.waited = 0, math.inf, 0
        self.state: dict[str, Tensor] = {}

    def see(self, evaluation: dict[str, float]) -> None:
        value = evaluation.get(self.by) if self.by else None
        cost = -math.inf if value is None else (value if self.by == "loss" else -value)
        if cost < self.value or value is None:
            self.value, self.step, self.waited = cost, int(evaluation["step"]), 0
            self.state = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        else:
            self.waited += 1

    def restore(self) -> None:
        self.model.load_state_dict(self.state)
