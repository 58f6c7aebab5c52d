"""The two long stages of a run: training the prompt, and measuring it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

from foreword.backbone import Decoding
from foreword.common.progress import Progress
from foreword.errors import RecipeError, UserError
from foreword.evaluation import Report, evaluate
from foreword.evaluation.calibration import calibrate
from foreword.recipe import Recipe, TaskId
from foreword.runs.baseline import key_of, measured_once
from foreword.runs.data import RunData
from foreword.tasks import BoundTask, Prediction, task_of
from foreword.training import History
from foreword.training import train as train_model
from foreword.training.checkpoints import Checkpoints
from foreword.training.hardware import Hardware
from foreword.training.masking import masked_words
from foreword.training.signals import Stop
from foreword.tuned import TunedModel


@dataclass(frozen=True)
class Stages:
    """What both of them need."""

    task: BoundTask
    recipe: Recipe
    data: RunData
    how: Decoding
    hardware: Hardware
    progress: Progress
    stop: Stop
    watch: Callable[[Mapping[str, float]], None] | None = None

    def train(self, model: TunedModel, checkpoints: Checkpoints) -> History:
        """Train the model in place, from its start or from a checkpoint."""
        if not model.trained_parameters:
            return History()
        # Processes that train together stop together, after a step.
        check = self.stop.check if self.hardware.processes == 1 else lambda: None

        watched = self.recipe.training.best_by or "loss"

        def score(current: TunedModel) -> float:
            report = evaluate(
                self.task.on(current),
                self.data.dev,
                self.how,
                metrics=[watched],
                batch_size=self.recipe.evaluation.batch_size,
                advance=lambda _: check(),
            )
            value = report.scores[watched]
            if value is None:
                raise RecipeError(
                    "recipe",
                    [
                        f"training.best_by: `{watched}` has no value on the dev examples; choose "
                        "another metric, or loss"
                    ],
                )
            return value

        def evaluated(entry: dict[str, float]) -> None:
            checkpoints.log({"evaluation": entry})
            if self.watch is not None:
                self.watch(entry)

        return train_model(
            model,
            self.data.pairs,
            self.recipe.training,
            dev=self.data.dev_pairs,
            dev_batch_size=self.recipe.evaluation.batch_size,
            score=score if self.data.dev and watched != "loss" else None,
            seed=self.recipe.seed,
            hardware=self.hardware,
            progress=self.progress,
            on_step=checkpoints.log,
            on_evaluation=evaluated,
            checkpoints=checkpoints,
            stop=self.stop,
        )

    def settled(self, model: TunedModel, stated: TaskId) -> tuple[Stages, TaskId]:
        """The stages that measure, and the task as an artifact states it, once the development
        examples have settled what a trained model answers from."""
        dev, tuned = self.data.dev, False

        def answers() -> list[Prediction]:
            nonlocal tuned
            tuned = True
            return self.task.on(model).answers(
                dev,
                self.how,
                batch_size=self.recipe.evaluation.batch_size,
                advance=lambda _: self.stop.check(),
            )

        thresholds = self.task.task.settled_on(self.recipe.task, dev, answers)
        if not thresholds:
            return self, stated
        if tuned and self.data.test_split == "dev":
            self.progress.say(
                f"note: {' and '.join(thresholds)} are tuned on the dev examples, and measured "
                "on them, too; task.data.test names others"
            )
        stated = stated.model_copy(update=thresholds)
        return replace(self, task=task_of(stated).on(model)), stated

    def take_prior_off(self, model: TunedModel) -> None:
        """Take the prior of label words off, where the recipe asks for it, and say it."""
        prior = self.calibrate(self.task.on(model))
        if prior:
            shares = ", ".join(f"{label} {share:.1%}" for label, share in prior.items())
            self.progress.say(f"prior of the labels, taken off: {shares}")

    def masked_words(self, model: TunedModel) -> AbstractContextManager[None]:
        """Learn masked words of unlabelled inputs beside the labels, where the recipe asks for it.

        Raises:
            UserError: the backbone has no masks, or there are no unlabelled inputs.
        """
        spec, task = self.recipe.training, self.task.on(model)
        if not spec.mlm_weight:
            return nullcontext()
        if model.backbone.geometry.kind != "encoder":
            raise UserError(
                f"training.mlm_weight: '{model.backbone.name}' is no masked model; leave it out"
            )
        if not self.data.unlabelled:
            raise UserError(
                "training.mlm_weight: there are no unlabelled inputs; name task.data.unlabelled"
            )
        rows = [
            row.pair
            for example in self.data.unlabelled
            for row in task.rows(example, labelled=False)[-1:]
        ]
        return masked_words(model, rows, weight=spec.mlm_weight, rows=spec.mlm_batch_size)

    def calibrate(self, task: BoundTask) -> dict[str, float]:
        """Set the prior of a model's label words, where the recipe asks for it; by label."""
        verbalizer = self.recipe.task.verbalizer
        real = verbalizer is not None and verbalizer.calibration == "examples"
        inputs = self.data.train if real else None
        return calibrate(task, inputs, batch_size=self.recipe.evaluation.batch_size)

    def measure(self, model: TunedModel) -> dict[str, Report]:
        """Reports by name: "prompt", and "backbone" where it is asked for."""
        tasks = {"prompt": self.task.on(model)}
        if self.recipe.evaluation.backbone_alone and model.differs_from_the_backbone:
            tasks["backbone"] = self.task.on(model).without_prompt()

        def advance(count: int) -> None:
            self.progress.advance(count)
            self.stop.check()

        def measured(name: str) -> Report:
            title = "measure the prompt" if name == "prompt" else "measure the backbone alone"
            self.progress.begin(title, len(self.data.test))
            if name == "backbone":
                self.calibrate(tasks[name])
            return evaluate(
                tasks[name],
                self.data.test,
                self.how,
                metrics=self.recipe.task.measured,
                batch_size=self.recipe.evaluation.batch_size,
                advance=advance,
            )

        reports = {}
        if "backbone" in tasks:
            alone = tasks["backbone"]
            reports["backbone"], known = measured_once(
                self._baseline(alone), lambda: measured("backbone")
            )
            if known:
                self.progress.say("the backbone alone was measured before, by the same: not again")
        return {**reports, "prompt": measured("prompt")}

    def _baseline(self, alone: BoundTask) -> str | None:
        """What decides the bare backbone's figures; None where answers are drawn."""
        if self.how.do_sample:
            return None
        verbalizer = self.recipe.task.verbalizer
        real = verbalizer is not None and verbalizer.calibration == "examples"
        return key_of(
            alone.model.backbone,
            self.recipe,
            self.data.test,
            self.how,
            self.data.train if real else (),
        )
