"""From a recipe to a run folder.

- `recipe.yaml`: the recipe with every default written out;
- `log.jsonl`: one line a step and an evaluation, losses in nats per target token or per label;
- `artifact/`: the trained prompt;
- `metrics.json`: everything measured; `answers.jsonl`: the test answers;
- `curve.png`: the learning curve;
- `study/`: what a teacher made of its text (`foreword.runs.distilling`);
- `checkpoints/`: what `resume` goes on from; gone when the run is finished.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from foreword.artifacts.artifact import save_artifact
from foreword.artifacts.manifest import size_in_bytes
from foreword.artifacts.starting import settled, without_folder
from foreword.axes.readout import SequenceHead
from foreword.backbone import Backbone, default_device, seed_all
from foreword.backbone.devices import check_places, main_device
from foreword.backbone.layout import Pair
from foreword.backbone.stored_pairs import lengths
from foreword.common import files
from foreword.common.packed import Each
from foreword.common.progress import Progress, Silent
from foreword.common.run_files import ARTIFACT, CURVE, METRICS, holds_run, is_finished
from foreword.errors import RunError, UserError
from foreword.methods import PET
from foreword.procedures.pet import Procedure
from foreword.procedures.teaching import soft_pairs
from foreword.recipe import (
    BackboneSpec,
    Recipe,
    load_recipe,
    parse_recipe,
)
from foreword.runs import resuming
from foreword.runs.curve import draw_curve
from foreword.runs.data import (
    RunExamples,
    data_hashes,
    without_folders,
)
from foreword.runs.distilling import Distillation, Text, divergences
from foreword.runs.folder import (
    Run,
    choose_folder,
    claimed,
    read_run,
    remove_artifact,
    write_answers,
)
from foreword.runs.given import as_the_recipe_says
from foreword.runs.preparing import Prepared, load, prepare
from foreword.runs.stages import Stages
from foreword.training import History
from foreword.training.checkpoints import FOLDER, LOG, Checkpoints, newest
from foreword.training.hardware import Hardware, settled_precision
from foreword.training.log import Log
from foreword.training.signals import Stop, Stopped, stop_on_signals
from foreword.training.storage import Storage
from foreword.tuned import TunedModel
from foreword.tuned.initial import Trained, initialise


def train(
    recipe: Recipe | Mapping[str, Any] | str | Path,
    *,
    overrides: Sequence[str] = (),
    out: Path | str | None = None,
    resume: bool = False,
    device: str | None = None,
    backbone: Backbone | None = None,
    progress: Progress | None = None,
    trust_remote_code: bool = False,
    watch: Callable[[Mapping[str, float]], None] | None = None,
) -> Run:
    """Run a recipe: train a prompt, measure it, write the run folder.

    Args:
        recipe: a recipe, its plain data, or its file.
        overrides: `key.path=value` strings, as after `--set`.
        out: the run folder; `runs/<name>` with a number if not given.
        resume: go on with the run in `out`, or with the newest unfinished `runs/<name>`. It ends
            with the bits that it would have had without the interruption.
        device: "cpu", "cuda" or "mps"; the best there is if not given.
        backbone: the recipe's, loaded already; it takes the recipe's rule for the beginning token.
        progress: told about the stages; nothing is printed without it.
        trust_remote_code: run code that comes with the backbone.
        watch: called with each evaluation during training; what it raises ends the run, which may
            go on later.

    Raises:
        UserError: the recipe, a data file or the backbone is wrong or (with `resume`) another than
            before, `backbone` is not what the recipe says, or `out` is not empty.
        RunError: the training failed, or a file cannot be written.
        Stopped: Ctrl-C or SIGTERM ended it; `resume` goes on.
    """
    notes: list[str] = []
    recipe = _recipe(recipe, overrides, notes.append)
    recipe = recipe.model_copy(update={"method": settled(recipe.method)})
    if backbone is not None:
        backbone = as_the_recipe_says(backbone, recipe.backbone, device)
    where = recipe_device(recipe.backbone, device, backbone)
    hardware = Hardware.of(
        where,
        settled_precision(recipe.training.precision, recipe.loads.dtype, where),
        tracker=recipe.training.tracker,
    )
    progress = progress if progress and hardware.main else Silent()
    for note in notes:
        progress.say(note)
    folder = choose_folder(recipe, Path(out) if out is not None else None, hardware, resume=resume)
    if is_finished(folder):
        progress.say(f"{folder}: is finished already; these are its results")
        run = read_run(folder, recipe)
        if not hardware.main:
            return replace(run, metrics={})
        Storage(folder / FOLDER).remove()
        return run
    with stop_on_signals() as stop:
        try:
            return _run(
                recipe,
                folder,
                resume,
                hardware,
                backbone,
                progress,
                stop,
                trust_remote_code,
                numbered=out is None and not resume,
                watch=watch,
            )
        except Stopped as stopped:
            if stopped.folder is None and resume and holds_run(folder):
                stopped.folder = folder
            raise


def _run(
    recipe: Recipe,
    folder: Path,
    resume: bool,
    hardware: Hardware,
    backbone: Backbone | None,
    progress: Progress,
    stop: Stop,
    trust_remote_code: bool,
    *,
    numbered: bool,
    watch: Callable[[Mapping[str, float]], None] | None,
) -> Run:
    if recipe.backbone.device_map is not None and hardware.processes > 1:
        raise UserError(
            f"backbone.device_map: {hardware.processes} processes train together, and each would "
            "spread a model over the same devices; start one process, or leave device_map out"
        )
    makes = {
        "method: pet trains one model after the other": isinstance(recipe.method, PET),
        "teacher: conversations are made one after the other": recipe.teacher is not None,
    }
    for what in (what for what, there in makes.items() if there and hardware.processes > 1):
        raise UserError(
            f"{what}, but {hardware.processes} processes would each write them into the same "
            "folder; start one process"
        )
    if hardware.sharding is not None:
        hardware.sharding.check(recipe.method)

    def prepared(recipe: Recipe, backbone: Backbone | None) -> Prepared:
        return prepare(
            recipe,
            hardware.device,
            backbone,
            progress,
            trust_remote_code=trust_remote_code,
            sharding=hardware.sharding,
        )

    text = Text.of(recipe)
    if text is None:
        ready = prepared(recipe, backbone)
    else:
        backbone = backbone or load(recipe, hardware.device, trust_remote_code=trust_remote_code)
    with claimed(folder, recipe, hardware, resume=resume, numbered=numbered) as folder:
        distillation = None
        if text is not None:
            assert backbone is not None, "it is loaded above"
            distillation = Distillation(recipe, text, folder, backbone, progress, stop.check)
            ready = distillation.learned(prepared(distillation.filled(), backbone))
        examples, stated, task = ready.examples, ready.stated, ready.task
        backbone, model, how, data = ready.backbone, ready.model, ready.how, ready.data
        method = without_folder(ready.recipe.method)
        about = resuming.about(recipe, backbone, data_hashes(ready.recipe), hardware)
        stages = Stages(task, ready.recipe, data, how, hardware, progress, stop, watch)
        hardware.track(folder, recipe.name, {"recipe": without_folders(recipe).to_yaml()})
        progress.say(ready.plan())
        for line in examples.counted:
            progress.say(line)
        taught: dict[str, Any] = {}
        if isinstance(recipe.method, PET):
            stages, taught = _taught(stages, model, folder, stated.labels, examples, backbone)
        history = _train(model, stages, folder, about, ready.trained)
        trained = time.monotonic()
        folded = model.fold()
        if hardware.sharding is not None:  # the backbone answers in all processes or in none
            seed_all(recipe.seed)
        if hardware.main or hardware.sharding is not None:
            with stop.patiently():
                stages, stated = stages.settled(folded, stated)
                reports = stages.measure(folded)
                learned = {} if distillation is None else distillation.measured(folded, ready)
        if not hardware.main:
            hardware.wait()
            hardware.close()
            return Run(folder, folder / ARTIFACT, recipe, {}, [])
        spent = about["initialise_seconds"], history.seconds, time.monotonic() - trained
        timing = {
            "initialise": spent[0],
            "train": spent[1],
            "evaluations": history.evaluation_seconds,
            "all": sum(spent),
        }
        metrics = {
            "split": data.test_split,
            "examples": len(data.test),
            "truncated": reports["prompt"].truncated,
            **{name: report.figures() for name, report in reports.items()},
            "training": {
                "steps": len(history.steps),
                "best_step": history.best_step,
                "stopped_early": history.stopped_early,
                "fit": None if history.fit is None else history.fit.as_json(),
                "evaluations": history.evaluations,
                "final_loss": _recent_loss(history),
                "initial_fit_error": about["initial_fit_error"],
                "trained_parameters": model.trained_parameters,
                "trained_share": model.trained_share,
                "stored_parameters": folded.stored_parameters,
                "pairs": len(data.pairs),
                "tokens_a_pair": _mean_length(data.pairs),
                "truncated": data.truncated,
                "resumed_at": about["resumed_at"],
            },
            **({"pet": taught} if taught else {}),
            **({"teacher": learned} if learned else {}),
            "seconds": {name: round(value, 2) for name, value in timing.items()},
        }
        remove_artifact(folder)
        try:
            save_artifact(
                folder / ARTIFACT,
                folded,
                name=recipe.name,
                method=method,
                task=stated,
                decoding=ready.recipe.decoding,
                data=about["data"],
                recipe=without_folders(recipe).model_dump(mode="json"),
                seed=recipe.seed,
                metrics={**reports["prompt"].figures(), **divergences(learned)},
                trained_parameters=model.trained_parameters,
            )
        except SafetensorError as error:
            raise RunError(f"{folder / ARTIFACT}: cannot be written: {error}") from error
        metrics["artifact_bytes"] = size_in_bytes(folder / ARTIFACT)
        samples = write_answers(folder, data.test, reports["prompt"], recipe)
        draw_curve(folder / CURVE, recipe, history)
        files.write_text(folder / METRICS, json.dumps(metrics, indent=2) + "\n")
        Storage(folder / FOLDER).remove()
        hardware.wait()
        hardware.close()
    return Run(folder, folder / ARTIFACT, recipe, metrics, samples)


def _mean_length(pairs: Sequence[Pair]) -> float:
    """Tokens of a training pair, source and target together."""
    return int(lengths(pairs).sum()) / max(1, len(pairs))


def recipe_device(spec: BackboneSpec, device: str | None, backbone: Backbone | None) -> str:
    """Where it runs: where it is asked to, where the backbone lies, or the best there is."""
    if backbone is not None:
        return device or backbone.device.type
    if spec.device_map is not None:
        if device is not None:
            raise UserError(
                f"device: '{device}' is asked for, but backbone.device_map says where the backbone "
                "lies; leave one of them out"
            )
        check_places(spec.device_map)
        return main_device(spec.device_map) or default_device()
    return device or default_device()


def _recipe(
    recipe: Recipe | Mapping[str, Any] | str | Path,
    overrides: Sequence[str],
    say: Callable[[str], None],
) -> Recipe:
    if isinstance(recipe, (str, Path)):
        return load_recipe(recipe, overrides, say=say)
    if isinstance(recipe, Recipe):
        if not overrides:
            return recipe
        training = recipe.training.model_dump(mode="json")
        recipe = {**recipe.model_dump(mode="json", exclude_unset=True), "training": training}
    return parse_recipe(recipe, overrides, folder=Path.cwd(), say=say)


def _train(
    model: TunedModel,
    stages: Stages,
    folder: Path,
    about: dict[str, Any],
    trained: Trained | None,
) -> History:
    """Train from the start, or from the newest checkpoint; `about` is told how it began."""
    recipe, hardware, say = stages.recipe, stages.hardware, stages.progress.say
    saved = newest(folder)
    hardware.wait()  # before one of them cuts the log
    about["resumed_at"] = []
    if saved is None:
        started = time.monotonic()
        examples = Each(stages.data.pairs, lambda pair: pair.source + pair.target)
        about["initial_fit_error"] = initialise(
            model, recipe.method.init, examples, stages.task.task.class_words, trained
        )
        stages.take_prior_off(model)
        about["initialise_seconds"] = time.monotonic() - started
    else:
        checkpoint, before = saved.checkpoint, saved.checkpoint.values["run"]
        for line in saved.passed_over:
            say(f"note: {line}; it is passed over")
        for line in resuming.compare(saved, about):
            say(f"note: {line}: the last bits may differ from those of an uninterrupted run")
        for key in ("initial_fit_error", "initialise_seconds"):
            about[key] = before[key]
        about["resumed_at"] = [*before["resumed_at"], checkpoint.step]
        say(f"goes on from {checkpoint.folder}")
    mark = None if saved is None else saved.checkpoint.values["log"]
    with (
        Log(folder / LOG, mark, hardware.main) as log,
        stages.stop.patiently(),
        stages.masked_words(model),
    ):
        checkpoints = Checkpoints(
            folder,
            log,
            every=recipe.training.checkpoint_every,
            about=about,
            saved=saved,
            writes=hardware.main,
        )
        return stages.train(model, checkpoints)


def _taught(
    stages: Stages,
    model: TunedModel,
    folder: Path,
    labels: Sequence[str],
    examples: RunExamples,
    backbone: Backbone,
) -> tuple[Stages, dict[str, Any]]:
    """The stages of PET's classifier, which learns from what the patterns' models say."""
    assert isinstance(stages.recipe.method, PET)
    procedure = Procedure(stages.recipe, folder, labels, examples, backbone, stages.progress, train)
    with stages.hardware.kept():
        softly, report = procedure.run()
    seed_all(stages.recipe.seed)  # whether models were trained just now, or are there already
    assert isinstance(model.readout, SequenceHead)
    model.readout.temperature = stages.recipe.method.temperature
    data = replace(stages.data, pairs=soft_pairs(stages.task.on(model), softly))
    return replace(stages, data=data), report


def _recent_loss(history: History) -> float | None:
    recent = [step["loss"] for step in history.steps[-50:]]
    return sum(recent) / len(recent) if recent else None
