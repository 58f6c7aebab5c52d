"""The training loop, on Accelerate.

A batch is the batch of all processes together: each takes its share of the rows, and the loss is
divided by the tokens (or sequences) of the whole optimizer step. So the same recipe trains the same
prompt with one process or two, and with a batch at once or in parts, as far as floats can.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from foreword.backbone import SAVINGS, without
from foreword.backbone.layout import Layout, Pair
from foreword.backbone.stored_pairs import lengths
from foreword.common.progress import Progress, Silent
from foreword.errors import RunError, UserError
from foreword.names import METRICS
from foreword.recipe import TrainingSpec
from foreword.training import randomness
from foreword.training.amount import Estimate, total_steps
from foreword.training.batching import POOL, LengthBatches
from foreword.training.checkpoints import Checkpoints
from foreword.training.fitting import Fit, fitted
from foreword.training.hardware import Hardware, settled_precision
from foreword.training.held_out import dev_loss, lay_out
from foreword.training.history import Best, History
from foreword.training.reuse import Planned, reusing
from foreword.training.schedule import schedule
from foreword.training.signals import Stop, Stopped
from foreword.training.snapshot import put_back, take
from foreword.tuned import TunedModel

Listener = Callable[[dict[str, float]], None]


def train(
    model: TunedModel,
    pairs: Sequence[Pair],
    spec: TrainingSpec,
    *,
    dev: Sequence[Pair] = (),
    dev_batch_size: int = 32,
    score: Callable[[TunedModel], float] | None = None,
    seed: int = 0,
    hardware: Hardware | None = None,
    progress: Progress | None = None,
    on_step: Listener = lambda _: None,
    on_evaluation: Listener = lambda _: None,
    checkpoints: Checkpoints | None = None,
    stop: Stop | None = None,
) -> History:
    """Train a model's parameters in place; at the end it holds the best prompt.

    Args:
        model: its trainable parameters are what moves.
        pairs: training examples.
        spec: the `training` section of a recipe.
        dev: held-out examples for the loss during training.
        dev_batch_size: how many of them go through the model together.
        score: what `best_by: bleu` asks for.
        seed: decides the order of examples.
        hardware: where it runs; made from the model's device if not given.
        progress: told about each step.
        on_step: called with each entry of `History.steps` that is made now.
        on_evaluation: the same for `History.evaluations`.
        checkpoints: where it is saved, and what it goes on from; nothing is saved without them.
        stop: looked at after each step and each batch of an evaluation.

    Raises:
        UserError: there are no pairs.
        RunError: a loss is not finite, or a checkpoint cannot be written.
        Stopped: `stop` was requested; a checkpoint was written.
    """
    if not pairs:
        raise UserError("there is nothing to train on: no training pairs")
    if hardware is None:
        backbone = model.backbone
        device = backbone.device.type
        precision = settled_precision(spec.precision, backbone.dtype, device)
        hardware = Hardware.of(device, precision)
    held_out = _HeldOut(dev, dev_batch_size, score)
    model.backbone.check_trainable(recomputing=spec.gradient_checkpointing is True)
    progress = progress or Silent()
    planned = Planned(model, pairs, spec, total_steps(spec, len(pairs)), hardware)
    off = [saving for saving in SAVINGS if saving in spec.savings.off]
    stop = stop or Stop()
    with ExitStack() as during:
        during.enter_context(without(model.backbone.model, off))
        during.enter_context(reusing(planned, progress, stop))
        fit = _fit(planned, checkpoints, progress)
        loop = _Loop(planned, fit, seed, checkpoints, stop)
        progress.begin("train", loop.total, loop.step)
        steps = loop.batches.steps(loop.step)
        estimate = Estimate(loop.total - loop.step)
        during.enter_context(model.backbone.recomputing(fit.gradient_checkpointing))
        loop.evaluate(held_out, on_evaluation)
        while not loop.done:
            with estimate.step():
                entry = loop.one(next(steps))
            on_step(entry)
            if estimate.line is not None:
                progress.say(estimate.line)
            progress.advance(1, _note(entry, loop.history))
            loop.evaluate(held_out, on_evaluation)
            loop.pause()
    return loop.end()


def _fit(planned: Planned, checkpoints: Checkpoints | None, progress: Progress) -> Fit:
    """What memory has room for: as a checkpoint has it, else measured now."""
    saved = None if checkpoints is None else checkpoints.saved
    known = None if saved is None else saved.checkpoint.values.get("fit")
    if known is not None:
        return Fit(**known)
    fit = fitted(planned.model, planned.pairs, planned.spec, planned.hardware)
    if fit.line is not None:
        progress.say(fit.line)
    return fit


@dataclass(frozen=True)
class _HeldOut:
    """What an evaluation during training measures."""

    pairs: Sequence[Pair]
    batch_size: int
    score: Callable[[TunedModel], float] | None


class _Loop:
    """What a training is made of, and where it stands: `step` optimizer steps are done."""

    def __init__(
        self,
        planned: Planned,
        fit: Fit,
        seed: int,
        checkpoints: Checkpoints | None,
        stop: Stop,
    ) -> None:
        self.model, self.pairs, self.spec = planned.model, planned.pairs, planned.spec
        self.hardware, self.total, self.fit = planned.hardware, planned.steps, fit
        self.checkpoints, self.stop = checkpoints, stop
        model, pairs, spec = self.model, self.pairs, self.spec
        pool = POOL if spec.savings.lengths else 1
        self.batches = LengthBatches(lengths(pairs), spec.batch_size, spec.accumulation, seed, pool)
        self.optimizer = torch.optim.AdamW(
            _groups(model, spec),
            lr=spec.learning_rate,
            betas=spec.betas,
            weight_decay=spec.weight_decay,
            fused=spec.savings.optimizer,
            foreach=False,
        )
        self.scheduler = schedule(self.optimizer, spec, self.total)
        self.wrapped, self.stepper = self.hardware.accelerator.prepare(model, self.optimizer)
        self.history, self.best = History(fit=fit), Best(model, spec)
        self.step, self.saved = 0, (-1, 0)
        self._resume()
        self.started = time.monotonic() - self.history.seconds
        self._save()

    @property
    def done(self) -> bool:
        """Whether all steps are done, or patience has ended it."""
        return self.step == self.total or self.history.stopped_early

    def one(self, step: list[list[int]]) -> dict[str, float]:
        """One optimizer step: its entry in the history."""
        rate = float(self.scheduler.get_last_lr()[0])
        losses, norm = _one_step(
            self.wrapped,
            self.model,
            self.pairs,
            step,
            self.spec,
            self.hardware,
            self.stepper,
            self.fit.micro_batch_size,
        )
        self.step += 1
        _finite("loss", losses["loss"], self.step, self.spec)
        self.scheduler.step()
        entry = {"step": self.step, **losses, "learning_rate": rate, "gradient_norm": norm}
        self.history.steps.append(entry)
        self.hardware.log({**losses, "learning_rate": rate}, self.step)
        return entry

    def evaluate(self, held_out: _HeldOut, on_evaluation: Listener) -> None:
        """Evaluate where that is due and not done yet; a stop in its midst undoes it."""
        spec = self.spec
        due = self.step == self.total or (
            spec.evaluate_every and self.step % spec.evaluate_every == 0
        )
        if not due or self.best.seen == self.step:
            return
        before, began = randomness.capture(), time.monotonic()
        try:
            evaluation = self._evaluation(held_out)
        except Stopped:
            self.history.evaluation_seconds += time.monotonic() - began
            randomness.restore(*before)
            self._save()
            raise
        self.history.evaluation_seconds += time.monotonic() - began
        _finite("development loss", evaluation.get("loss", 0.0), self.step, spec)
        if len(evaluation) > 1:
            self.history.evaluations.append(evaluation)
            on_evaluation(evaluation)
        self.hardware.log({f"dev/{k}": v for k, v in evaluation.items() if k != "step"}, self.step)
        self.best.see(evaluation)
        self.history.stopped_early = self._impatient()

    def pause(self) -> None:
        """Between two steps: save where that is due, and stop where somebody asked."""
        stopping = self.hardware.any(self.stop.requested)
        if stopping or (self.checkpoints is not None and self.checkpoints.due(self.step)):
            self._save()
        if stopping:
            self.hardware.wait()
            raise Stopped(self.stop.requested or signal.SIGTERM)

    def end(self) -> History:
        """Save a last time and put the best prompt into the model."""
        self._save()
        # What mixed precision put around it; Accelerate's `unwrap_model` would load DeepSpeed.
        for name in ("forward", "_original_forward"):
            self.model.__dict__.pop(name, None)
        self.best.restore()
        self.history.best_step = self.best.step
        self.history.seconds = time.monotonic() - self.started
        return self.history

    def _evaluation(self, held_out: _HeldOut) -> dict[str, float]:
        """Every process evaluates alike: parameters are equal, so nothing need be sent."""
        figures: dict[str, float] = {"step": self.step}
        # Processes that train together stop together, after a step.
        check = self.stop.check if self.hardware.processes == 1 else lambda: None
        with self.hardware.accelerator.autocast():
            if held_out.pairs:
                figures["loss"] = dev_loss(self.model, held_out.pairs, held_out.batch_size, check)
            if held_out.score is not None and self.spec.best_by not in (None, "loss"):
                figures[self.spec.best_by] = held_out.score(self.model)
        return figures

    def _impatient(self) -> bool:
        return self.spec.patience is not None and self.best.waited >= self.spec.patience

    def _save(self) -> None:
        """Write a checkpoint, unless there is one of this very moment."""
        moment = (self.step, self.best.seen)
        if self.checkpoints is None or not self.checkpoints.writes or moment == self.saved:
            return
        tensors, values = take(self.model, self.optimizer, self.scheduler, self.best)
        values["batches"] = self.batches.position(self.step)
        values["fit"] = self.fit.as_json()
        values["seconds"] = time.monotonic() - self.started
        values["evaluation_seconds"] = self.history.evaluation_seconds
        self.checkpoints.save(self.step, tensors, values)
        self.saved = moment

    def _resume(self) -> None:
        saved = None if self.checkpoints is None else self.checkpoints.saved
        if saved is None:
            return
        checkpoint = saved.checkpoint
        if checkpoint.values["batches"] != self.batches.position(checkpoint.step):
            raise UserError(
                f"{checkpoint.folder}: the training pairs or their order are not those it was made "
                "with, so the run cannot go on from it; give the same data, or start a new run"
            )
        put_back(
            checkpoint.tensors,
            checkpoint.values,
            self.model,
            self.optimizer,
            self.scheduler,
            self.best,
        )
        self.step, self.history = checkpoint.step, saved.history
        self.history.fit = self.fit
        self.history.seconds = checkpoint.values["seconds"]
        self.history.evaluation_seconds = checkpoint.values.get("evaluation_seconds", 0.0)
        self.history.stopped_early = self._impatient()
        self.saved = (self.step, self.best.seen)


def _groups(model: TunedModel, spec: TrainingSpec) -> list[dict[str, Any]]:
    """What is trained, by its rate: virtual tokens first, then head, then the backbone's own."""
    parts = (
        (model.reparam, spec.learning_rate),
        (model.readout, spec.head_learning_rate or spec.learning_rate),
        (model.delta, spec.delta_learning_rate or spec.learning_rate),
    )
    by_rate = [([p for p in part.parameters() if p.requires_grad], rate) for part, rate in parts]
    return [{"params": trained, "lr": rate} for trained, rate in by_rate if trained]


def _note(entry: dict[str, float], history: History) -> str:
    """How the training goes: the step's loss, and what the last evaluation measured."""
    parts = [f"loss {entry['loss']:.3f}"]
    if history.evaluations:
        measured = history.evaluations[-1]
        if "loss" in measured:
            parts.append(f"dev loss {measured['loss']:.3f}")
        parts += [
            f"dev {METRICS[name].title} {value:.{METRICS[name].decimals}f}"
            for name, value in measured.items()
            if name in METRICS
        ]
    return ", ".join(parts)


def _finite(what: str, value: float, step: int, spec: TrainingSpec) -> None:
    if not math.isfinite(value):
        raise RunError(
            f"the {what} became {value} at step {step}; try a lower training.learning_rate "
            f"(now {spec.learning_rate}), or training.warmup"
        )


def _one_step(
    wrapped: Callable[[Layout], Tensor],
    model: TunedModel,
    pairs: Sequence[Pair],
    step: list[list[int]],
    spec: TrainingSpec,
    hardware: Hardware,
    optimizer: Any,
    micro_batch_size: int | None = None,
) -> tuple[dict[str, float], float]:
    """One optimizer step over one or more batches: its losses, as `History.steps` has them, and the
    gradient's norm. No more than so many examples of a batch go through the model at once."""
    rows = [i for batch in step for i in batch]
    own = sum(len(pairs[i].rows) for i in rows) * model.reparam.own_answers
    answers = sum(pairs[i].answers for i in rows) + own
    whole = answers if spec.loss == "token_mean" else len(rows)
    parts: list[Tensor] = []
    for last, share in _shares(step, hardware, micro_batch_size):
        nll = wrapped(lay_out(model, pairs, share.rows))
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
    trained = hardware.sum(torch.stack(parts).sum()).item()
    if spec.loss == "token_mean":
        return {"loss": trained}, float(norm)
    return {"loss": trained * whole / answers, "sequence_loss": trained}, float(norm)


@dataclass(frozen=True)
class _Share:
    rows: list[int]
    weight: float


def _shares(
    step: list[list[int]], hardware: Hardware, most: int | None
) -> Iterator[tuple[bool, _Share]]:
    """This process's rows of each batch, in parts of at most so many, as many parts in every
    process; one without any rows takes part with weight 0."""
    for i, batch in enumerate(step):
        rows = batch[hardware.rank :: hardware.processes]
        parts = 1 if most is None else -(-len(batch) // (hardware.processes * most))
        for part in range(parts):
            own = rows[len(rows) * part // parts : len(rows) * (part + 1) // parts]
            last = (i, part) == (len(step) - 1, parts - 1)
            yield last, _Share(own or batch[:1], 1.0 if own else 0.0)
