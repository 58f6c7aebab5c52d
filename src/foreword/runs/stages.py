"""The two long stages of a run: training the prompt, and measuring it."""

from __future__ import annotations

from dataclasses import dataclass

from foreword.backbone import Decoding
from foreword.evaluation import Report, evaluate
from foreword.progress import Progress
from foreword.recipe import Recipe
from foreword.runs.data import RunData, training_pairs
from foreword.text import TextTask
from foreword.training import History
from foreword.training import train as train_model
from foreword.training.checkpoints import Checkpoints
from foreword.training.hardware import Hardware
from foreword.training.signals import Stop
from foreword.tuned import TunedModel


@dataclass(frozen=True)
class Stages:
    """What both of them need."""

    task: TextTask
    recipe: Recipe
    data: RunData
    how: Decoding
    hardware: Hardware
    progress: Progress
    stop: Stop

    def train(self, model: TunedModel, checkpoints: Checkpoints) -> History:
        """Train the model in place, from its start or from a checkpoint."""
        if not model.trained_parameters:
            return History()
        dev_pairs, _ = training_pairs(self.task, model, self.data.dev, None)
        # Processes that train together stop together, after a step.
        check = self.stop.check if self.hardware.processes == 1 else lambda: None

        def score(current: TunedModel) -> float:
            report = evaluate(
                current,
                self.task,
                self.data.dev,
                self.how,
                metrics=["bleu"],
                advance=lambda _: check(),
            )
            return report.scores["bleu"] or 0.0

        return train_model(
            model,
            self.data.pairs,
            self.recipe.training,
            dev=dev_pairs,
            score=score if self.data.dev else None,
            seed=self.recipe.seed,
            hardware=self.hardware,
            progress=self.progress,
            on_step=checkpoints.log,
            on_evaluation=lambda entry: checkpoints.log({"evaluation": entry}),
            checkpoints=checkpoints,
            stop=self.stop,
        )

    def measure(self, model: TunedModel) -> dict[str, Report]:
        """Reports by name: "prompt", and "backbone" where it is asked for."""
        subjects = {"prompt": model}
        if self.recipe.evaluation.backbone_alone and model.placement.length:
            subjects = {"backbone": model.bare(), **subjects}

        def advance(count: int) -> None:
            self.progress.advance(count)
            self.stop.check()

        reports = {}
        for name, subject in subjects.items():
            title = "measure the prompt" if name == "prompt" else "measure the backbone alone"
            self.progress.begin(title, len(self.data.test))
            reports[name] = evaluate(
                subject,
                self.task,
                self.data.test,
                self.how,
                metrics=self.recipe.task.metrics,
                batch_size=self.recipe.evaluation.batch_size,
                advance=advance,
            )
        return reports
