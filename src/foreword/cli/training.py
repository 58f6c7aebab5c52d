"""`foreword train`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foreword.cli import options as o
from foreword.cli.output import complain, emit_json, say
from foreword.common.limits import MOST
from foreword.errors import UserError

if TYPE_CHECKING:
    from foreword.recipe import Recipe
    from foreword.runs import Run
    from foreword.runs.preview import Shown
    from foreword.tasks import LabelWords


@o.with_flags
def train(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE.yaml", help="What to run.")],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="key.path=value", help="Override a value; may be repeated."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="The run folder; runs/NAME if not given.")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the run in --out, or with the newest unfinished runs/NAME.",
        ),
    ] = False,
    *,
    on: o.BackboneFlags,
    batch_size: o.BatchSizeOption = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", min=1, max=MOST, help="Use N training pairs, dev and test records only."
        ),
    ] = None,
    seed: o.SeedOption = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Train and write nothing: show what the first examples become, as tokens.",
        ),
    ] = False,
    as_json: o.JsonOption = False,
) -> None:
    """Train the prompt that a recipe describes, measure it, and write a run folder."""
    from foreword.recipe import load_recipe

    flags = {
        "backbone.name": on.backbone,
        "backbone.dtype": on.dtype.value if on.dtype else None,
        "training.batch_size": batch_size,
        "task.limits.train": limit,
        "task.limits.dev": limit,
        "task.limits.test": limit,
        "seed": seed,
    }
    overrides = [f"{key}={json.dumps(v)}" for key, v in flags.items() if v is not None]
    checked = load_recipe(recipe, [*overrides, *(set_ or [])], say=complain)

    if dry_run and resume:
        raise UserError("--dry-run: trains nothing, so --resume has nothing to go on with")
    if dry_run:
        _dry_run(checked, on, as_json)
        return
    carry_out(checked, out, resume, on, as_json)


def carry_out(
    checked: Recipe, out: Path | None, resume: bool, on: o.BackboneFlags, as_json: bool
) -> None:
    """Run a recipe and print what it measured."""
    _check_folder(out, resume)

    from foreword.common.progress import progress_for_terminal
    from foreword.runs import Stopped
    from foreword.runs import train as run_recipe

    progress = progress_for_terminal()
    try:
        run = run_recipe(
            checked,
            out=out,
            resume=resume,
            device=on.device.value if on.device else None,
            progress=progress,
            trust_remote_code=on.trust_remote_code,
        )
    except Stopped as stopped:
        progress.end()
        complain(f"foreword: {stopped}{_go_on(stopped.folder, on)}")
        raise typer.Exit(stopped.exit_status) from stopped
    finally:
        progress.end()
    if run.metrics:
        _print_json(run) if as_json else _print_run(run)


def _check_folder(out: Path | None, resume: bool) -> None:
    """Refuse a folder that cannot be a run's before anything slow is imported."""
    from foreword.common.run_files import RUNS, refuse_for_new_run, refuse_unwritable

    if out is None or resume:
        refuse_unwritable(out or RUNS)
    else:
        refuse_for_new_run(out)


def _dry_run(recipe: Recipe, on: o.BackboneFlags, as_json: bool) -> None:
    """Show what would be trained."""
    from foreword.runs.preview import preview

    outlook = preview(
        recipe,
        device=on.device.value if on.device else None,
        trust_remote_code=on.trust_remote_code,
    )
    if as_json:
        emit_json(outlook.as_json())
        return
    say(outlook.plan)
    if outlook.amount is not None:
        say(str(outlook.amount))
    for line in outlook.notes:
        say(line)
    _print_words(outlook.words)
    for number, pattern in enumerate(outlook.patterns, 1):
        say(f"\npattern {number} of {len(outlook.patterns)}  {pattern.template!r}")
        for line in pattern.notes:
            say(line)
        _print_words(pattern.words)
        _print_examples(pattern.examples, pattern.most, pattern.words)
    if outlook.patterns:
        say("\nthe classifier, which learns from what the patterns' models say")
    if outlook.in_front:
        say(f"{outlook.in_front} virtual tokens stand outside of the text")
    _print_examples(outlook.examples, outlook.most, outlook.words)
    say("\nnothing was trained or written")


def _print_words(words: LabelWords) -> None:
    for label, named in words.items():
        listed = ", ".join(f"{word!r} as {' '.join(tokens)}" for word, tokens in named.items())
        say(f"label {label!r}: {listed}")


def _print_examples(examples: Sequence[Shown], longest: int | None, words: LabelWords) -> None:
    most = "" if longest is None else f" of at most {longest}"
    for shown in examples:
        say(f"\n{shown.where}\n  text     {shown.text!r}")
        before: list[str] = []
        for row in shown.rows:
            if row.tokens != before:
                say(f"  tokens   {' '.join(row.tokens)}  ({len(row.tokens)}{most})")
            before = row.tokens
            for name, tokens in {"target": row.target, "read at": row.read_at}.items():
                if tokens:
                    say(f"  {name:<8} {' '.join(tokens)}")
            if row.says:
                say(f"  says     {' '.join(_named(token, words) for token in row.says)}")
        if shown.cut:
            say(f"  cut      {shown.cut} tokens of {', then of '.join(shown.cut_fields)}")


def _named(token: str, words: LabelWords) -> str:
    """A label with its words, where these are not the label itself."""
    named = list(words.get(token, ()))
    return f"{token} ({', '.join(named)})" if named not in ([], [token]) else token


def _go_on(folder: Path | None, on: o.BackboneFlags) -> str:
    """The command that goes on with a stopped run, by the recipe that it wrote down."""
    if folder is None:
        return ""
    words = ["foreword", "train", str(folder / "recipe.yaml"), "--out", str(folder), "--resume"]
    words += ["--device", on.device.value] if on.device else []
    for file in on.plugin or ():
        words += ["--plugin", str(file)]
    words += ["--trust-remote-code"] if on.trust_remote_code else []
    return f"; go on with: {shlex.join(words)}"


def _print_json(run: Run) -> None:
    emit_json({"folder": str(run.folder), "artifact": str(run.artifact), **run.metrics})


def _print_run(run: Run) -> None:
    from foreword.artifacts.card import said_of_trained
    from foreword.cli.tables import (
        DISTANCES,
        counted,
        distance_table,
        pattern_table,
        print_table,
        score_table,
        shorten,
    )

    measured = f"{run.metrics['examples']} {run.metrics['split']} records"
    title = counted(measured, run.metrics["truncated"])
    data = run.recipe.task.data
    made = data.dev is None and data.hold_out is None and run.metrics["split"] == "dev"
    if "teacher" in run.metrics and made:
        title += "; the references are the teacher's answers"
    names = {"backbone": "backbone alone", "prompt": run.recipe.method.name}
    subjects = {names[k]: run.metrics[k] for k in names if k in run.metrics}
    for name, scores in run.metrics.get("teacher", {}).get("scores", {}).items():
        subjects[DISTANCES[name]] = {"all": scores}
    print_table(score_table(title, subjects))
    if "teacher" in run.metrics:
        print_table(distance_table(run.metrics["teacher"]))
    if "pet" in run.metrics:
        print_table(pattern_table(run.metrics["pet"]))
    for sample in run.samples:
        for name in ("input", "output", "reference"):
            say(f"  {name:<9}  {shorten(sample[name])}")
        say()
    training = run.metrics["training"]
    share = training.get("trained_share")
    say(f"trained   {said_of_trained(training['trained_parameters'], share)}")
    kilobytes = run.metrics["artifact_bytes"] / 1000
    say(f"artifact  {run.artifact}  ({kilobytes:.0f} kB)")
    for name, file in {"curve": "curve.png", "confusion": "confusion.png"}.items():
        if (run.folder / file).exists():
            say(f"{name:<9} {run.folder / file}")
    say(f"figures   {run.folder / 'metrics.json'}")
