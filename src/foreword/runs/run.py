"""From a recipe to a run folder.

- `recipe.yaml`: the recipe with every default written out;
- `log.jsonl`: one line a step and an evaluation;
- `artifact/`: the trained prompt;
- `metrics.json`: everything measured; `answers.jsonl`: the test answers;
- `curve.png`: the learning curve.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import set_seed

from foreword import files
from foreword.artifact import save_artifact
from foreword.backbone import Backbone, Decoding, default_device, load_backbone
from foreword.evaluation import Report, evaluate
from foreword.initial import initialise
from foreword.manifest import TaskId, size_in_bytes
from foreword.progress import Progress, Silent
from foreword.recipe import Recipe, load_recipe, parse_recipe
from foreword.runs.curve import draw_curve
from foreword.runs.data import RunData, data_hashes, read_data, training_pairs
from foreword.runs.folder import Log, choose_folder, make_folder, write_answers
from foreword.text import TextTask
from foreword.training import History
from foreword.training import train as train_model
from foreword.training.hardware import Hardware
from foreword.tuned import TunedModel, compose


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: everything that was written.
        artifact: the trained prompt's folder, inside it.
        recipe: what was run.
        metrics: the content of `metrics.json`.
        samples: `{"input", "output", "reference"}` of a few test examples.
    """

    folder: Path
    artifact: Path
    recipe: Recipe
    metrics: dict[str, Any]
    samples: list[dict[str, str]]


def train(
    recipe: Recipe | Mapping[str, Any] | str | Path,
    *,
    overrides: Sequence[str] = (),
    out: Path | str | None = None,
    device: str | None = None,
    backbone: Backbone | None = None,
    progress: Progress | None = None,
    trust_remote_code: bool = False,
) -> Run:
    """Run a recipe: train a prompt, measure it, write the run folder.

    Args:
        recipe: a recipe, its plain data, or its file.
        overrides: `key.path=value` strings, as after `--set`.
        out: the run folder; `runs/<name>` with a number if not given.
        device: "cpu", "cuda" or "mps"; the best there is if not given.
        backbone: a loaded one to use instead of loading the recipe's.
        progress: told about the stages; nothing is printed without it.
        trust_remote_code: run code that comes with the backbone.

    Raises:
        UserError: the recipe, a data file or the backbone is wrong, or `out` is not empty.
        RunError: the training failed.
    """
    recipe = _recipe(recipe, overrides)
    progress = progress or Silent()
    task = TextTask.of(recipe.task.input, recipe.task.target, recipe.task.truncate)
    hardware = Hardware.of(
        device or (backbone.device.type if backbone else default_device()),
        recipe.training.precision,
        tracker=recipe.training.tracker,
    )
    folder = choose_folder(recipe.name, Path(out) if out is not None else None, hardware)
    set_seed(recipe.seed)
    backbone = backbone or load_backbone(
        recipe.backbone.name,
        revision=recipe.backbone.revision,
        dtype=recipe.backbone.dtype,
        device=hardware.device,
        bos=recipe.backbone.bos,
        trust_remote_code=trust_remote_code,
    )
    model = compose(backbone, recipe.method)
    data = read_data(recipe, task, model)
    make_folder(folder, recipe, hardware)
    hardware.track(folder, recipe.name, {"recipe": recipe.to_yaml()})
    how = Decoding(**recipe.decoding.model_dump())
    progress.say(_plan(recipe, model, data))
    timing = {}
    started = time.monotonic()
    fit = initialise(model, recipe.method.init, [pair.source + pair.target for pair in data.pairs])
    timing["initialise"] = time.monotonic() - started
    with Log(folder / "log.jsonl", hardware.main) as log:
        history = _train(model, task, recipe, data, how, hardware, progress, log)
    timing["train"] = history.seconds
    folded = model.fold()
    if not hardware.main:
        hardware.wait()
        return Run(folder, folder / "artifact", recipe, {}, [])
    reports = _measure(folded, task, recipe, data, how, progress)
    timing["all"] = time.monotonic() - started
    metrics = {
        "split": data.test_split,
        "examples": len(data.test),
        "truncated": reports["prompt"].truncated,
        **{name: report.figures() for name, report in reports.items()},
        "training": {
            "steps": len(history.steps),
            "best_step": history.best_step,
            "stopped_early": history.stopped_early,
            "evaluations": history.evaluations,
            "final_loss": _recent_loss(history),
            "initial_fit_error": fit,
            "trained_parameters": model.trained_parameters,
            "stored_parameters": folded.reparam().numel(),
            "pairs": len(data.pairs),
            "truncated": data.truncated,
        },
        "seconds": {name: round(value, 2) for name, value in timing.items()},
    }
    artifact = folder / "artifact"
    save_artifact(
        artifact,
        folded,
        name=recipe.name,
        method=recipe.method,
        task=TaskId(
            **task.as_json(),
            format=recipe.task.data.format,
            references=recipe.task.data.references,
            group=recipe.task.data.group,
            metrics=recipe.task.metrics,
        ),
        decoding=recipe.decoding,
        data=data_hashes(recipe),
        recipe=recipe.model_dump(mode="json"),
        seed=recipe.seed,
        metrics=reports["prompt"].figures(),
    )
    metrics["artifact_bytes"] = size_in_bytes(artifact)
    samples = write_answers(folder, data.test, reports["prompt"], recipe.evaluation.samples)
    files.write_text(folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    draw_curve(folder / "curve.png", recipe.name, history)
    hardware.close()
    hardware.wait()
    return Run(folder, artifact, recipe, metrics, samples)


def _recipe(recipe: Recipe | Mapping[str, Any] | str | Path, overrides: Sequence[str]) -> Recipe:
    if isinstance(recipe, (str, Path)):
        return load_recipe(recipe, overrides)
    if isinstance(recipe, Recipe):
        if not overrides:
            return recipe
        recipe = recipe.model_dump(mode="json", exclude_unset=True)
    return parse_recipe(recipe, overrides, folder=Path.cwd())


def _train(
    model: TunedModel,
    task: TextTask,
    recipe: Recipe,
    data: RunData,
    how: Decoding,
    hardware: Hardware,
    progress: Progress,
    log: Callable[[dict[str, Any]], None],
) -> History:
    if not model.trained_parameters:
        return History()
    dev_pairs, _ = training_pairs(task, model, data.dev, None)

    def score(current: TunedModel) -> float:
        report = evaluate(current, task, data.dev, how, metrics=["bleu"])
        return report.scores["bleu"] or 0.0

    history = train_model(
        model,
        data.pairs,
        recipe.training,
        dev=dev_pairs,
        score=score if data.dev else None,
        seed=recipe.seed,
        hardware=hardware,
        progress=progress,
        on_step=log,
    )
    for evaluation in history.evaluations:
        log({"evaluation": evaluation})
    return history


def _measure(
    model: TunedModel,
    task: TextTask,
    recipe: Recipe,
    data: RunData,
    how: Decoding,
    progress: Progress,
) -> dict[str, Report]:
    """Reports by name: "prompt", and "backbone" where it is asked for."""
    subjects = {"prompt": model}
    if recipe.evaluation.backbone_alone and model.placement.length:
        subjects = {"backbone": model.bare(), **subjects}
    reports = {}
    for name, subject in subjects.items():
        title = "measure the prompt" if name == "prompt" else "measure the backbone alone"
        progress.begin(title, len(data.test))
        reports[name] = evaluate(
            subject,
            task,
            data.test,
            how,
            metrics=recipe.task.metrics,
            batch_size=recipe.evaluation.batch_size,
            advance=progress.advance,
        )
    return reports


def _plan(recipe: Recipe, model: TunedModel, data: RunData) -> str:
    geometry = model.backbone.geometry
    cut = f", {data.truncated} of them cut to fit" if data.truncated else ""
    return (
        f"{recipe.name}: {recipe.method.name} on {recipe.backbone.name} "
        f"({geometry.layers} layers, width {geometry.width}), {recipe.method.length} virtual "
        f"tokens, {model.trained_parameters:,} trained parameters; {len(data.pairs)} training "
        f"pairs{cut}, {len(data.dev)} dev and {len(data.test)} {data.test_split} records"
    )


def _recent_loss(history: History) -> float | None:
    recent = [step["loss"] for step in history.steps[-50:]]
    return sum(recent) / len(recent) if recent else None
