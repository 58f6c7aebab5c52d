"""One recipe's prompt trained by foreword and by PEFT: score, time of a step, memory.

    python bench/peft_run.py recipes/real/e2e.yaml --set backbone.name=FOLDER --out runs/beside-peft

Both begin with the same numbers (the recipe's start, which PEFT loads from `foreword export peft`),
take the same batches in the same order with the recipe's rate, schedule and clipping, step by step
in turns, each in a model of its own with weights of the same type; PEFT's step is
`model(**batch).loss`, so a recipe with another loss than `token_mean`, or with `accumulation`, is
refused. What PEFT saved becomes an artifact again (`foreword import peft`), and both
artifacts answer the recipe's development examples by the same decoding.

Time is a ratio: seconds (with `--clock cpu` processor seconds) of PEFT's steps by foreword's, the
median over ten parts of the training. Memory is the most that the first step holds beyond the
backbone, in bytes of live tensors. `figures.json` in the folder has all of it.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM
from transformers.utils import logging as transformers_logging

import foreword
from foreword.artifacts.artifact import save_artifact
from foreword.backbone.memory import Alive, resident
from foreword.backbone.stored_pairs import lengths
from foreword.common.progress import Silent
from foreword.recipe import TrainingSpec
from foreword.runs.preparing import Prepared, prepare
from foreword.runs.run import recipe_device
from foreword.training.amount import total_steps
from foreword.training.batching import POOL, LengthBatches
from foreword.training.hardware import Hardware, settled_precision
from foreword.training.loop import _one_step
from foreword.training.schedule import schedule
from foreword.tuned.initial import initialise
from peft_steps import collated
from training import without_out

OURS, PEFT = "foreword", "PEFT"
PARTS = 10
Step = Callable[[list[int]], float]


def main(arguments: Sequence[str] | None = None) -> int:
    """Train both, measure both, write and print the figures."""
    options = _options(arguments)
    transformers_logging.set_verbosity_error()
    if options.threads:
        torch.set_num_threads(options.threads)
    recipe, out = foreword.load_recipe(options.recipe, options.set or []), Path(options.out)
    _refuse_another_loss(recipe.training)
    device = recipe_device(recipe.backbone, options.device, None)
    ready = prepare(recipe, device, None, Silent())
    initialise(
        ready.model, recipe.method.init, [pair.source + pair.target for pair in ready.data.pairs]
    )
    _save(ready, out / "start")
    theirs = _peft(ready, out / "start", out / "peft-start")
    steps = {OURS: _our_step(ready, device), PEFT: _their_step(ready, theirs)}
    held = {OURS: resident(ready.backbone.model), PEFT: resident(theirs.get_base_model())}
    seconds, losses, peaks = _train(ready, steps, held, options.clock)
    _save(ready, out / OURS)
    theirs.save_pretrained(out / "peft-trained")
    foreword.import_peft(
        out / "peft-trained",
        out / PEFT,
        backbone=ready.backbone,
        input=recipe.task.input,
        target=recipe.task.target or "",
    )
    report = {
        "command": shlex.join(
            ["python", "bench/peft_run.py", *without_out(arguments or sys.argv[1:])]
        ),
        "versions": {name: version(name) for name in ("torch", "transformers", "peft")},
        "recipe": recipe.name,
        "steps": len(losses[OURS]),
        "trained_parameters": ready.model.trained_parameters,
        "dtype": ready.backbone.dtype,
        "peft_over_foreword": _ratios(seconds),
        "peak_over_pefts": round(peaks[OURS] / peaks[PEFT], 4),
        "last_losses": {
            name: round(statistics.mean(one[-len(one) // PARTS :]), 4)
            for name, one in losses.items()
        },
        "scores": {name: _scores(ready, out / name) for name in (OURS, PEFT)},
    }
    (out / "figures.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=2))
    return 0


def _refuse_another_loss(spec: TrainingSpec) -> None:
    """PEFT's step is one batch and the mean loss of its tokens."""
    for field, only in (("loss", "token_mean"), ("accumulation", 1)):
        if getattr(spec, field) != only:
            sys.exit(
                f"training.{field}: the recipe has {getattr(spec, field)}, and a step of PEFT's is "
                f"as {only}; set training.{field}={only}"
            )


def _save(ready: Prepared, folder: Path) -> None:
    save_artifact(
        folder,
        ready.model,
        name=ready.recipe.name,
        method=ready.recipe.method,
        task=ready.stated,
        decoding=ready.recipe.decoding,
        seed=ready.recipe.seed,
    )


def _peft(ready: Prepared, start: Path, folder: Path) -> Any:
    """PEFT's model, of weights that it loads by itself, with the prompt that stands in `start`."""
    from peft import PeftConfig, get_peft_model, load_peft_weights, set_peft_model_state_dict

    foreword.export_peft(start, folder)
    ours = ready.backbone.model
    loader = AutoModelForSeq2SeqLM if ours.config.is_encoder_decoder else AutoModelForCausalLM
    base = loader.from_pretrained(ours.config.name_or_path, dtype=ours.dtype).to(ours.device)
    config = PeftConfig.from_pretrained(str(folder))
    config.inference_mode = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of transformers, about PEFT's ways
        model = get_peft_model(base, config)
        set_peft_model_state_dict(model, load_peft_weights(str(folder), device=str(ours.device)))
    return model.train()


def _our_step(ready: Prepared, device: str) -> Step:
    spec = ready.recipe.training
    dtype = ready.backbone.dtype
    hardware = Hardware.of(device, settled_precision(spec.precision, dtype, device))
    optimizer, scheduler = _optimizer(ready, ready.model)
    wrapped, stepper = hardware.accelerator.prepare(ready.model, optimizer)

    def step(rows: list[int]) -> float:
        losses, _ = _one_step(
            wrapped, ready.model, ready.data.pairs, [rows], spec, hardware, stepper
        )
        scheduler.step()
        return losses["loss"]

    return step


def _their_step(ready: Prepared, model: Any) -> Step:
    optimizer, scheduler = _optimizer(ready, model)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    encodes, pairs = model.config.is_encoder_decoder, ready.data.pairs
    clip = ready.recipe.training.clip

    def step(rows: list[int]) -> float:
        batch = collated([pairs[row] for row in rows], "text", encodes=encodes)
        loss = model(**{name: value.to(model.device) for name, value in batch.items()}).loss
        loss.backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(trained, clip)
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
        return float(loss.detach())

    return step


def _optimizer(ready: Prepared, model: torch.nn.Module) -> tuple[Any, Any]:
    spec = ready.recipe.training
    optimizer = torch.optim.AdamW(
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        lr=spec.learning_rate,
        betas=spec.betas,
        weight_decay=spec.weight_decay,
        fused=True,
    )
    return optimizer, schedule(optimizer, spec, total_steps(spec, len(ready.data.pairs)))


def _train(
    ready: Prepared, steps: dict[str, Step], held: dict[str, Any], clock: str
) -> tuple[dict[str, list[float]], dict[str, list[float]], dict[str, int]]:
    """Seconds and loss of each step, and the most that the first one holds."""
    spec, now = ready.recipe.training, time.process_time if clock == "cpu" else time.perf_counter
    batches = LengthBatches(
        lengths(ready.data.pairs),
        spec.batch_size,
        seed=ready.recipe.seed,
        pool=POOL if spec.savings.lengths else 1,
    )
    total = total_steps(spec, len(ready.data.pairs))
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    losses: dict[str, list[float]] = {name: [] for name in steps}
    peaks: dict[str, int] = {}
    for number, (rows,) in enumerate(islice(batches.steps(), total)):
        for name in (OURS, PEFT) if number % 2 else (PEFT, OURS):
            with Alive(held[name]) if number == 0 else nullcontext() as alive:
                started = now()
                losses[name].append(steps[name](rows))
                if number:
                    seconds[name].append(now() - started)
            if alive is not None:
                peaks[name] = alive.peak
        if number % 10 == 9:
            print(f"step {number + 1} of {total}: {losses[OURS][-1]:.4f} {losses[PEFT][-1]:.4f}")
    return seconds, losses, peaks


def _ratios(seconds: dict[str, list[float]]) -> dict[str, float]:
    size = max(1, len(seconds[OURS]) // PARTS)
    starts = range(0, len(seconds[OURS]) - size + 1, size)
    ratios = [
        sum(seconds[PEFT][begin : begin + size]) / sum(seconds[OURS][begin : begin + size])
        for begin in starts
    ]
    return {
        "median": round(statistics.median(ratios), 3),
        "min": round(min(ratios), 3),
        "max": round(max(ratios), 3),
    }


def _scores(ready: Prepared, artifact: Path) -> dict[str, float]:
    loaded = foreword.load(artifact, backbone=ready.backbone)
    metrics = ready.recipe.task.measured
    spec = ready.recipe
    report = loaded.evaluate(
        ready.data.dev,
        metrics=metrics,
        batch_size=spec.evaluation.batch_size,
        **spec.decoding.model_dump(exclude_unset=True),
    )
    return {name: round(value, 3) for name, value in report.figures()["all"].items()}


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", help="a recipe that writes texts")
    parser.add_argument("--set", action="append", metavar="key.path=value")
    parser.add_argument("--out", required=True, help="folder for artifacts and figures.json")
    parser.add_argument("--device")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
