"""PET's procedure (Schick & Schütze 2021, section 3): many models label, one classifier learns.

Below the run's folder `patterns/` holds what it needs: the labelled and the unlabelled examples as
JSONL, a run folder for each model (`g0-p1-m2`: generation, pattern, model), what each model says of
every unlabelled example (`said.safetensors`), and at the end `ensemble.json`. A stopped run goes on
with the first model that is not there yet.
"""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import save_file
from torch import Tensor

from foreword.artifacts.artifact import load_model
from foreword.backbone import Backbone
from foreword.common import files
from foreword.common.progress import Progress
from foreword.data import Example
from foreword.errors import RecipeError, UserError
from foreword.methods import PET, HardPrompt
from foreword.methods.pet import Pattern
from foreword.procedures.teaching import SAID, SMALLEST, Member, Said, mixed, read_said
from foreword.recipe import Recipe, TaskId, VerbalizerSpec, parse_recipe
from foreword.tasks import BoundTask, Prediction, Task, task_of
from foreword.templates import Template
from foreword.tuned.compose import compose

FOLDER, ENSEMBLE = "patterns", "ensemble.json"


class Examples(Protocol):
    """The examples of a run: labelled, unlabelled, and those that are measured."""

    @property
    def train(self) -> Sequence[Example]: ...

    @property
    def unlabelled(self) -> Sequence[Example]: ...

    @property
    def test(self) -> Sequence[Example]: ...


Trainer = Callable[..., Any]
"""`foreword.runs.train`: a run inside the run."""


class Procedure:
    """One run of PET in a folder.

    Args:
        recipe: whose method is PET.
        folder: the run's.
        labels: in the order of the classifier's outputs.
        examples: labelled, unlabelled, and those that are measured.
        backbone: the pretrained one.
        progress: told what is done.
        train: runs a recipe.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        labels: Sequence[str],
        examples: Examples,
        backbone: Backbone,
        progress: Progress,
        train: Trainer,
    ) -> None:
        assert isinstance(recipe.method, PET)
        self.recipe, self.method = recipe, recipe.method
        self.folder, self.labels = folder / FOLDER, tuple(labels)
        self.backbone, self.progress, self.train = backbone, progress, train
        self.labelled = examples.train[: recipe.task.limits.train]
        rng = random.Random(f"{recipe.seed}/unlabelled")
        rest = examples.unlabelled
        drawn = rng.sample(range(len(rest)), min(len(rest), self.method.unlabelled))
        self.unlabelled = [rest[number] for number in drawn]
        self.dev = examples.test
        if not self.unlabelled:
            raise RecipeError(
                "recipe",
                [
                    "task.data.unlabelled: pet labels examples that have no label, and there are "
                    "none; name a file, or leave some of the training file to them with "
                    "task.limits.per_label or task.limits.train"
                ],
            )
        known = {*labels, *(e.label or "" for e in self.labelled)}
        unnamed = sorted(known - set(self.method.labels))
        if unnamed:
            raise RecipeError(
                "recipe",
                [
                    f"method.words: has no word for the label {unnamed[0]!r}; its labels are "
                    f"{', '.join(self.method.labels)}"
                ],
            )
        unseen = sorted(set(self.method.labels) - set(labels))
        if unseen:
            raise RecipeError(
                "recipe",
                [
                    f"method.words: has a word for {unseen[0]!r}, but the training examples have "
                    f"the labels {', '.join(labels)}; leave it out, or name all labels in "
                    "task.labels"
                ],
            )
        self._check_patterns()

    def run(self) -> tuple[list[tuple[Example, tuple[float, ...]]], dict[str, Any]]:
        """The unlabelled examples with their labels' probabilities, softened; and a report."""
        self.folder.mkdir(exist_ok=True)
        self._write("labelled.jsonl", self.labelled, once=True)
        self._write("unlabelled.jsonl", self.unlabelled, once=True)
        self._write("dev.jsonl", self.dev, once=True)
        weights = self._weights()
        taught: dict[Member, Said] = {}
        for generation in range(self.method.generations + 1):
            taught = self._generation(generation, taught, weights)
        shared, dev = (
            mixed([getattr(s, part) for s in taught.values()], [weights[m.pattern] for m in taught])
            for part in ("unlabelled", "dev")
        )
        report = self._report(taught, weights, dev)
        shares = (shared / self.method.temperature).softmax(-1).tolist()
        softly = [(e, tuple(row)) for e, row in zip(self.unlabelled, shares, strict=True)]
        return softly, report

    def tasks(self) -> list[Task]:
        """The patterns as tasks.

        Raises:
            RecipeError: a template of theirs does not go with the classifier's settings.
        """
        return [self._task(pattern) for pattern in self.method.patterns]

    def _task(self, pattern: Pattern) -> Task:
        with self._naming(pattern):
            return task_of(
                TaskId(
                    input=pattern.input,
                    target="{reference}",
                    truncate=self._truncated(pattern),
                    second=pattern.second,
                    max_tokens=self.recipe.task.max_tokens,
                    answer="label",
                    labels=self.labels,
                    verbalizer=VerbalizerSpec(words=self.method.words_of(pattern)),
                )
            )

    @contextmanager
    def _naming(self, pattern: Pattern) -> Iterator[None]:
        """Say which pattern an error is of."""
        try:
            yield
        except UserError as error:
            wrong = f"method.patterns: {str(pattern)!r}: {error}"
            raise RecipeError("recipe", [wrong]) from error

    def _check_patterns(self) -> None:
        """Make sure that every pattern can be read, and every example fits it.

        Raises:
            RecipeError: one cannot, or does not.
        """
        for task, pattern in zip(self.tasks(), self.method.patterns, strict=True):
            with self._naming(pattern):
                bare = self.bare(task)
                for example in (*self.labelled, *self.unlabelled, *self.dev):
                    bare.rows(example, labelled=False)

    def bare(self, task: Task) -> BoundTask:
        """A pattern, read by the backbone as it is."""
        readout = task.readout(self.backbone)
        return task.on(compose(self.backbone, HardPrompt(name="hard-prompt"), readout))

    def _weights(self) -> list[float]:
        """How much each pattern counts."""
        if self.method.weighting == "uniform":
            return [1.0] * len(self.method.patterns)
        weights = []
        for task in self.tasks():
            predictions = self.bare(task).answers(self.labelled)
            right = sum(
                prediction.answer == example.label
                for prediction, example in zip(predictions, self.labelled, strict=True)
            )
            weights.append(right / len(self.labelled))
        return weights if any(weights) else [1.0] * len(weights)

    def _generation(
        self, number: int, before: dict[Member, Said], weights: Sequence[float]
    ) -> dict[Member, Said]:
        members = [
            Member(number, pattern, model)
            for pattern in range(len(self.method.patterns))
            for model in range(self.method.models)
        ]
        taught = {}
        for i, member in enumerate(members):
            file = self.folder / member.name / SAID
            if not file.exists():
                self.progress.say(
                    f"pet: generation {number}, model {i + 1} of {len(members)}: "
                    f"{self.method.patterns[member.pattern]}"
                )
                data = self._training_set(member, before, weights)
                self._teach(member, data, file)
            taught[member] = read_said(
                file, unlabelled=len(self.unlabelled), dev=len(self.dev), labels=len(self.labels)
            )
        return taught

    def _teach(self, member: Member, data: Path, file: Path) -> None:
        """Train one model, and keep what it says."""
        out = self.folder / member.name
        recipe = self._member_recipe(member, data)
        self.train(
            recipe, out=out, resume=out.exists(), backbone=self.backbone, progress=self.progress
        )
        manifest, model = load_model(out / "artifact", backbone=self.backbone)
        task = task_of(manifest.task).on(model)
        logs = {}
        for name, examples in (("unlabelled", self.unlabelled), ("dev", self.dev)):
            self.progress.begin(f"label the {name} examples", len(examples))
            predictions = task.answers(
                examples,
                batch_size=self.recipe.evaluation.batch_size,
                advance=self.progress.advance,
            )
            logs[name] = torch.stack([self._logs(prediction) for prediction in predictions])
        temporary = file.with_name(f".{SAID}")
        save_file(logs, temporary)
        temporary.replace(file)
        # Weights of a whole model for each member; what is needed of it is written down.
        shutil.rmtree(out / "artifact", ignore_errors=True)

    def _logs(self, prediction: Prediction) -> Tensor:
        return torch.tensor(
            [math.log(max(prediction.probabilities[label], SMALLEST)) for label in self.labels]
        )

    def _training_set(
        self, member: Member, before: dict[Member, Said], weights: Sequence[float]
    ) -> Path:
        """What a model learns from: the labelled examples, and in iPET what others say is sure."""
        name = f"train-{member.name}.jsonl"
        chosen = list(self.labelled)
        if before:
            chosen += self._sure(member, before, weights)
        self._write(name, chosen)
        return self.folder / name

    def _sure(
        self, member: Member, before: dict[Member, Said], weights: Sequence[float]
    ) -> list[Example]:
        """Examples that some of the others label, in the labelled ones' proportions.

        Drawn as probably as the teachers are sure of them (section 3.5).
        """
        rng = random.Random(f"{self.recipe.seed}/{member.name}")
        others = [m for m in before if (m.pattern, m.number) != (member.pattern, member.number)]
        others = others or list(before)
        count = max(1, round(self.method.teachers * len(others)))
        teachers = sorted(rng.sample(others, count), key=lambda m: m.name)
        shares = mixed(
            [before[m].unlabelled for m in teachers], [weights[m.pattern] for m in teachers]
        ).softmax(-1)
        best, label = shares.max(-1)
        size = round(len(self.labelled) * self.method.growth**member.generation)
        labelled: list[Example] = []
        for number, name in enumerate(self.labels):
            same = sum(e.label == name for e in self.labelled)
            wanted = round(size * same / len(self.labelled)) - same
            candidates = (label == number).nonzero().squeeze(1).tolist()
            # Exponential clocks: without replacement, each as probably as it is sure.
            clocks = {i: -math.log(rng.random() or SMALLEST) / best[i].item() for i in candidates}
            for i in sorted(candidates, key=lambda i: clocks[i])[: max(0, wanted)]:
                e = self.unlabelled[i]
                labelled.append(Example(e.fields, (name,), e.group, e.where, name))
        return labelled

    def _member_recipe(self, member: Member, data: Path) -> dict[str, Any]:
        method, task = self.method, self.recipe.task
        pattern = method.patterns[member.pattern]
        masks = method.mlm_weight if self.backbone.geometry.kind == "encoder" else 0.0
        column = task.data.label
        raw: dict[str, Any] = {
            "version": 1,
            "name": f"{self.recipe.name}-{member.name}"[:100],
            "backbone": self.recipe.backbone.model_dump(mode="json"),
            "seed": (self.recipe.seed + 1009 * (member.number + 1)) % 2**32,
            "task": {
                "data": {
                    "format": "jsonl",
                    "train": str(data.resolve()),
                    "dev": str((self.folder / "dev.jsonl").resolve()),
                    "label": column,
                    **(
                        {"unlabelled": str((self.folder / "unlabelled.jsonl").resolve())}
                        if masks
                        else {}
                    ),
                },
                "input": pattern.input,
                "second": pattern.second,
                "truncate": self._truncated(pattern),
                "max_tokens": task.max_tokens,
                "labels": list(self.labels),
                "verbalizer": {"words": {k: list(v) for k, v in method.words_of(pattern).items()}},
            },
            "method": method.tuned if method.steps else "hard-prompt",
            "evaluation": {"backbone_alone": False, "samples": 0},
        }
        if method.steps:
            raw["training"] = {
                "steps": method.steps,
                "batch_size": method.batch_size,
                "learning_rate": method.learning_rate,
                "warmup": 0.0,
                "weight_decay": 0.01,
                "best_by": None,
                "precision": self.recipe.training.precision,
                "mlm_weight": masks,
                "mlm_batch_size": method.mlm_batch_size,
            }
        return parse_recipe(raw, where=member.name).model_dump(mode="json")

    def _truncated(self, pattern: Pattern) -> str | None:
        """The classifier's field that gives way, where the pattern has it and does not say."""
        field = self.recipe.task.truncate
        templates = [Template.parse(text) for text in pattern.texts]
        says = any(template.cuts for template in templates)
        return None if says or all(field not in t.slots for t in templates) else field

    def _report(
        self, taught: dict[Member, Said], weights: Sequence[float], dev: Tensor
    ) -> dict[str, Any]:
        gold = [self.labels.index(e.label) if e.label in self.labels else -1 for e in self.dev]

        def accuracy(logs: Tensor) -> float:
            predicted: list[int] = logs.argmax(-1).tolist()
            return 100 * sum(a == b for a, b in zip(predicted, gold, strict=True)) / len(gold)

        report = {
            "labelled": len(self.labelled),
            "unlabelled": len(self.unlabelled),
            "patterns": [
                {
                    **asdict(member),
                    "text": str(self.method.patterns[member.pattern]),
                    "weight": weights[member.pattern],
                    "accuracy": accuracy(answers.dev),
                }
                for member, answers in taught.items()
            ],
            "ensemble_accuracy": accuracy(dev),
        }
        files.write_text(self.folder / ENSEMBLE, json.dumps(report, indent=2) + "\n")
        return report

    def _write(self, name: str, examples: Sequence[Example], *, once: bool = False) -> None:
        """Write examples as JSONL.

        Args:
            name: of the file.
            examples: what it gets.
            once: whether what models said so far is of these examples alone.

        Raises:
            UserError: the file is there and holds other examples.
        """
        column = self.recipe.task.data.label or "label"
        rows = [{**e.fields, **({} if e.label is None else {column: e.label})} for e in examples]
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        file = self.folder / name
        if file.exists() and file.read_text(encoding="utf-8") == text:
            return
        if once and file.exists():
            raise UserError(
                f"{file}: holds other examples than the data gives now, so the run cannot go on; "
                "put the old data back, or start a new run"
            )
        files.write_text(file, text)
