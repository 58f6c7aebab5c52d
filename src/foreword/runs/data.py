"""What a run reads: examples from files, and from them rows of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from foreword import names
from foreword.artifacts.starting import source_hash, without_folder
from foreword.backbone import Decoding
from foreword.common.packed import Packed, fact
from foreword.common.progress import Progress, Silent
from foreword.data import (
    Example,
    Reading,
    bare_name,
    by_what_was_left_out,
    few_shot,
    hold_out,
    leave_out,
    merged,
    shuffled,
    source_sha256,
    take_census,
)
from foreword.data import read_data as read_file
from foreword.errors import RecipeError, argument
from foreword.methods import MethodOptions
from foreword.recipe import Limits, Recipe, TaskId, written_input
from foreword.runs.demonstrations import shown_first
from foreword.tasks import KINDS, BoundTask
from foreword.templates import fields_asked
from foreword.templates.template import Template
from foreword.training import Pair

Split = Literal["train", "dev", "test", "unlabelled"]


@dataclass(frozen=True)
class RunExamples:
    """What the files hold.

    Attributes:
        train: examples to train on, rows that ask the same apart.
        dev: examples watched during training.
        test: examples measured afterwards; `test_split` names where they come from.
        counted: what there is to say of them, line by line.
        unlabelled: inputs whose labels, if there are any, are not looked at.
        demonstrated: examples of which the method shows some in its text.
    """

    train: Sequence[Example]
    dev: Sequence[Example]
    test: Sequence[Example]
    test_split: str
    counted: list[str]
    unlabelled: Sequence[Example] = field(default_factory=list)
    demonstrated: Sequence[Example] = field(default_factory=list)


@dataclass(frozen=True)
class RunData:
    """The same, as far as it is trained on, as tokens.

    Attributes:
        train: the examples that the pairs are of, and others that the limit left out.
        pairs: training pairs.
        dev: examples watched during training; `dev_pairs` are they as tokens.
        test: examples measured afterwards; `test_split` names where they come from.
        truncated: how many training inputs were cut to fit the backbone's context.
        unlabelled: inputs whose labels are not looked at.
    """

    train: Sequence[Example]
    pairs: Sequence[Pair]
    dev: Sequence[Example]
    dev_pairs: Sequence[Pair]
    test: Sequence[Example]
    test_split: str
    truncated: int
    unlabelled: Sequence[Example] = field(default_factory=list)


def trains(recipe: Recipe) -> bool:
    """Whether a recipe's method has anything to train.

    Raises:
        RecipeError: a head where the method trains none, or a method of a head alone without one.
    """
    method, answer = recipe.method, recipe.task.answer
    still = _is_still(method)
    if still and method.name == "head-only" and not recipe.task.has_head:
        raise RecipeError(
            "recipe",
            [
                "method: head-only trains a head, but this task asks for "
                f"{names.ANSWERS[answer].title} without one; give a task with labels "
                "and no verbalizer, or another method"
            ],
        )
    if still and method.name != "head-only" and recipe.task.has_head:
        raise RecipeError(
            "recipe",
            [f"method: {method.name} trains nothing, so no head can answer; use head-only"],
        )
    verbalizer = recipe.task.verbalizer
    calibrated = verbalizer is not None and verbalizer.calibration == "examples"
    return not still or recipe.task.has_head or calibrated


def _is_still(method: MethodOptions) -> bool:
    return not method.enters.trains and method.moves.kind == "none"


def read_examples(recipe: Recipe, progress: Progress | None = None) -> RunExamples:
    """Read a recipe's files; `progress` is told how far it is with a large one.

    Raises:
        UserError: a file is missing or malformed.
    """
    spec, limits = recipe.task.data, recipe.task.limits
    if not (spec.dev or spec.test or spec.hold_out):
        raise RecipeError(
            "recipe", ["task.data: names neither `dev` nor `test` nor `hold_out` to measure on"]
        )
    reads = trains(recipe) or recipe.method.in_text is not None
    if reads and spec.train is None:
        raise RecipeError("recipe", ["task.data.train: is missing; name the training file"])
    inputs = _inputs(recipe)
    counted: list[str] = []

    def read(split: Split, merge: bool) -> Sequence[Example]:
        path = getattr(spec, split)
        if path is None:
            return []
        reading = read_file(
            path,
            spec.format,
            inputs=inputs,
            merge=merge,
            need_references=split != "unlabelled",
            progress=progress,
            **spec.options("train" if split == "unlabelled" else split),
        )
        counted.extend(_counts(split, reading, inputs, progress))
        return reading.examples

    train = read("train", merge=False) if reads or spec.hold_out else []
    dev = read("dev", merge=True)
    if spec.hold_out is not None:
        seed = recipe.seed if spec.hold_out_seed is None else spec.hold_out_seed
        before = len(train)
        train, dev = hold_out(
            train, spec.hold_out, seed=seed, inputs=inputs, whole=spec.hold_out_whole
        )
        inside = before - len(train) - len(dev)
        dev = merged(dev)
        counted.append(f"dev: {len(dev):,} of the training file's, held out")
        if spec.hold_out_whole:
            counted.append(f"train: {inside:,} that stand inside one of them left out")
    if spec.without:
        train, left = leave_out(train, spec.without)
        counted.append(f"train: {len(left):,} left out by task.data.without")
        dev = by_what_was_left_out(dev, spec.without)
    if limits.sample is not None and limits.per_label is None:
        train = shuffled(train, limits.sample, inputs=inputs)
        counted.append(f"train: {limits.train:,} of {len(train):,} drawn by sample {limits.sample}")
    rest = train[limits.train :] if limits.train is not None else []
    if limits.per_label is not None:
        train, rest = few_shot(
            train,
            limits.per_label,
            seed=recipe.seed if limits.sample is None else limits.sample,
            inputs=inputs,
            most=limits.train,
        )
        most = "" if limits.train is None else f" and {limits.train} in all at most"
        counted.append(
            f"train: {len(train):,} examples drawn, {limits.per_label} of each label{most}"
        )
    unlabelled = read("unlabelled", merge=False) if spec.unlabelled else rest
    dev = dev[: limits.dev]
    test, split = (read("test", merge=True), "test") if spec.test else (dev, "dev")
    if split == "test":
        test = by_what_was_left_out(test, spec.without) if spec.without else test
        test = test[: limits.test]
    for name, measured in {"dev": dev, split: test}.items():
        counted.extend(_one_sided(name, measured, getattr(limits, name)))
    shown = [] if recipe.method.in_text is None else train[: limits.train]
    train = train if trains(recipe) else []
    return RunExamples(train, dev, test, split, counted, unlabelled, shown)


def check_given(recipe: Recipe) -> None:
    """Read the files that a recipe names, where others are still to be made.

    Raises:
        UserError: a file is missing or malformed.
    """
    spec, inputs = recipe.task.data, _inputs(recipe)
    splits: tuple[Literal["train", "dev", "test"], ...] = ("train", "dev", "test")
    for split in splits:
        if path := getattr(spec, split):
            read_file(path, spec.format, inputs=inputs, **spec.options(split))


def state_task(recipe: Recipe, examples: RunExamples) -> TaskId:
    """The task as an artifact states it: what the recipe says, and the labels of the data.

    Raises:
        RecipeError: there are fewer than two labels.
    """
    task = recipe.task
    labels = task.labels
    labelled = names.ANSWERS[task.answer].labelled
    if task.verbalizer is not None:
        labels = labels or tuple(task.verbalizer.words) if labelled else None
    elif labelled:
        known = _labels(task.answer, examples.train)
        used = _labels(task.answer, examples.train[: task.limits.train])
        if len(used) < 2:
            raise RecipeError("recipe", [_too_few(known, used, task.limits)])
        labels = labels or known
    return TaskId.of(
        task,
        input=shown_first(recipe, examples.demonstrated),
        labels=labels or (),
        **fact(
            examples.train,
            "settled",
            task.model_dump(mode="json"),
            lambda: KINDS[task.answer].settled_by(examples.train, task),
        ),
    )


def read_data(
    recipe: Recipe,
    examples: RunExamples,
    stated: TaskId,
    task: BoundTask,
    how: Decoding,
    progress: Progress | None = None,
) -> RunData:
    """Turn examples into tokens and make sure that all of them fit, before anything is trained.

    Args:
        recipe: its method has what it takes from the data.
        examples: what the files hold.
        stated: the task as an artifact states it.
        task: the same, bound to the model.
        how: decoding.
        progress: told how many rows of large data are tokenised.

    Raises:
        UserError: an example is too long, or lacks what the task asks for.
    """
    test, dev, train = examples.test, examples.dev, examples.train
    packed = any(isinstance(part, Packed) for part in (test, dev, train))
    decided = [_decides(recipe, stated), task.decides()] if packed else None
    task.check([], how)
    pairs, truncated = task.pairs(
        train, recipe.task.limits.train, decided=decided, progress=progress
    )
    dev_pairs, _ = task.pairs(dev if train else [], decided=decided, progress=progress)
    task.task.check_labels(test, examples.test_split)
    task.check(test, how, decided=decided)
    if train and recipe.training.best_by not in (None, "loss"):
        task.check(dev, how, decided=decided)
    return RunData(
        train,
        pairs,
        dev,
        dev_pairs,
        test,
        examples.test_split,
        truncated,
        examples.unlabelled,
    )


def _decides(recipe: Recipe, stated: TaskId) -> list[Any]:
    """Of recipe and task, as plain data, what decides which tokens an example becomes."""
    parts = (stated, recipe.method, recipe.backbone)
    return [part.model_dump(mode="json") for part in parts]


def without_folders(recipe: Recipe) -> Recipe:
    """The recipe with the names alone of its data files and of the artifact that it starts from: no
    folder of this machine."""
    task = recipe.task.model_copy(update={"data": recipe.task.data.moved(bare_name)})
    teacher = None if recipe.teacher is None else recipe.teacher.moved(bare_name)
    changed = {"task": task, "teacher": teacher, "method": without_folder(recipe.method)}
    return recipe.model_copy(update=changed)


def data_hashes(recipe: Recipe) -> dict[str, Any]:
    """Name and sha256 of each file that a recipe reads (`Recipe.files`), and of the artifact or
    text that training starts from (`init`)."""
    init = source_hash(recipe.method.init)
    read = {
        _called(key): {"name": bare_name(path), "sha256": source_sha256(path)}
        for key, path in recipe.files.items()
    }
    return read | ({} if init is None else {"init": init})


def _called(key: str) -> str:
    """What an artifact calls a file, by its key in the recipe."""
    *_, section, name = key.split(".")
    if section == "texts" or key == "teacher.prompt":
        return f"teacher {int(name) + 1 if section == 'texts' else 1}"
    return f"{section} ids" if name == "ids" else name


def _inputs(recipe: Recipe) -> tuple[str, ...] | None:
    """The fields that the templates name; None where they are not what is read."""
    task = recipe.task
    if not names.ANSWERS[task.answer].templates:
        return None
    own = (slot for text in recipe.method.templates for slot in Template.parse(text).slots)
    second = None if names.ANSWERS[task.answer].apart else task.second
    named = fields_asked(written_input(task.input), second, task.target)
    choice = recipe.method.choice
    chosen_by = () if choice is None else (choice.field,)
    return tuple(dict.fromkeys((*named, *own, *chosen_by)))


def _too_few(known: Sequence[str], used: Sequence[str], limits: Limits) -> str:
    """What is wrong where there are not two labels to learn."""
    held = f"the only label {used[0]!r}" if used else "no label"
    field = f"task.limits.train{argument(' (or --limit)', '')}"
    if limits.per_label is not None and limits.train == 1:
        return f"{field}: 1 has {held}; a head needs an example of at least two labels"
    if len(known) < 2:
        return f"task.data.train: has {held}; a head needs at least two"
    return (
        f"{field}: {limits.train} has {held}, since limits take a file from its beginning; leave "
        "it out and give a small training.steps, which draws from the whole file, or shuffle a "
        "file that is sorted"
    )


def _one_sided(split: str, examples: Sequence[Example], limit: int | None) -> list[str]:
    labels: set[str | None] = set()
    for example in examples:
        labels.add(example.label)
        if len(labels) > 1 or None in labels:
            break
    if len(examples) < 2 or len(labels) > 1 or None in labels:
        return []
    cut = f"; task.limits.{split} takes them from the beginning" if limit is not None else ""
    return [f"note: all {len(examples):,} {split} examples have the label {labels.pop()!r}{cut}"]


def _labels(answer: names.Answer, examples: Sequence[Example]) -> tuple[str, ...]:
    """The labels or tags of examples, sorted."""
    kind = KINDS[answer]

    def collect() -> list[str]:
        return sorted({label for example in examples for label in kind.labels_of(example)})

    return tuple(fact(examples, "labels", answer, collect))


def _counts(
    split: str, reading: Reading, inputs: Sequence[str] | None, progress: Progress | None
) -> list[str]:
    shown = (progress if isinstance(reading.examples, Packed) else None) or Silent()
    left_out = [len(reading.empty), *reading.empty[:1], *reading.notes]

    def count() -> list[str]:
        shown.begin(f"count {split}", len(reading.examples))
        census = take_census(
            reading.examples,
            inputs=inputs,
            empty=reading.empty,
            notes=reading.notes,
            advance=shown.advance,
        )
        return census.lines(split)

    lines: list[str] = fact(reading.examples, "census", [split, inputs, left_out], count)
    return lines
