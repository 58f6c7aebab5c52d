"""One task object: every kind answers through the same calls, and nobody outside asks its kind."""

from __future__ import annotations

import ast
import random
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from foreword import names
from foreword.backbone import Backbone, Decoding
from foreword.data import Example
from foreword.errors import ArtifactError, UserError
from foreword.methods import HardPrompt, HeadOnly, PrefixTuning, PTuningV2
from foreword.methods.axes import Table
from foreword.recipe import TaskId, parse_recipe
from foreword.tasks import (
    KINDS,
    BoundTask,
    Prediction,
    Request,
    Task,
    answer_together,
    task_of,
)
from foreword.tuned.compose import compose

SOURCE = Path(__file__).resolve().parents[2] / "src" / "foreword"
PACKAGE = Path(__import__("foreword.tasks", fromlist=["_"]).__file__).parent
PREFIX = PTuningV2(name="p-tuning-v2", length=2, reparameterization=Table(std=1.0))
WORDS = {"yes": ("good", "very good"), "no": ("bad",)}
STATED: dict[str, dict[str, Any]] = {
    "text": {"input": "{text} ->"},
    "two fields": {"input": "{text} : {other}"},
    "label": {"input": "{text}", "answer": "label", "labels": ("yes", "no")},
    "label words": {
        "input": "{text} : {mask}",
        "answer": "label",
        "labels": ("yes", "no"),
        "verbalizer": {"words": WORDS},
    },
    "labels": {"input": "{text}", "answer": "labels", "labels": ("yes", "no", "so")},
    "number": {"input": "{text}", "answer": "number", "mean": 3.0, "deviation": 2.0},
    "tags": {"input": "", "answer": "tags", "labels": ("O", "B-X")},
    "span": {"input": "", "answer": "span", "stride": 4},
    "word": {"input": "{text} {mask}", "answer": "word"},
}
METHODS: dict[str, Any] = {
    "text": PrefixTuning(name="prefix-tuning", length=3, reparameterization=Table(std=1.0)),
    "label": HeadOnly(name="head-only"),
    "word": HardPrompt(name="hard-prompt"),
}
FIELDS = {
    "text": "the grey otter swims in a cold river",
    "other": "near us",
    "question": "what swims",
    "context": "the grey otter swims in a cold river near us",
}


def stated(name: str) -> TaskId:
    return TaskId(**{"target": "{reference}", **STATED[name]})


@pytest.fixture(scope="module")
def tasks(tiny_backbone: Any) -> dict[str, BoundTask]:
    """A task of every kind, each with a prompt or a head of its own on one decoder."""
    backbone: Backbone = tiny_backbone("gpt2", dtype=torch.float64)
    bound = {}
    for number, name in enumerate(STATED):
        torch.manual_seed(number)
        task = task_of(stated(name))
        model = compose(backbone, METHODS.get(name, PREFIX), task.readout(backbone)).double()
        bound[name] = task.on(model.eval())
    return bound


def example(number: int) -> Example:
    words = FIELDS["context"].split()[: 3 + number]
    fields = {name: f"{text} {number}" for name, text in FIELDS.items()}
    return Example({**fields, "text": " ".join(words)}, words=tuple(words), where=f"row {number}")


def assert_alike(one: Prediction, other: Prediction) -> None:
    if isinstance(one.answer, float):
        assert one.answer == pytest.approx(other.answer, abs=1e-9)
    else:
        assert one.answer == other.answer
    assert (one.start, one.input) == (other.start, other.input)
    assert one.probabilities == pytest.approx(other.probabilities, abs=1e-9)


def test_tasks_of_all_kinds_are_answered_together_as_alone(tasks: dict[str, BoundTask]) -> None:
    how = Decoding(max_new_tokens=5)
    requests = [
        Request(task, example(number), how) for task in tasks.values() for number in range(3)
    ]
    random.Random(0).shuffle(requests)
    done: list[int] = []
    together = answer_together(requests, batch_size=4, advance=done.append)
    assert sum(done) == len(requests)
    for request, prediction in zip(requests, together, strict=True):
        (alone,) = request.task.answers([request.example], how, batch_size=1)
        assert_alike(prediction, alone)


def test_every_answer_has_a_kind_and_every_kind_its_own_file() -> None:
    assert set(KINDS) == set(get_args(names.Answer))
    files = {kind.__module__ for kind in KINDS.values()}
    assert len(files) == len(KINDS)
    for answer, kind in KINDS.items():
        assert kind.answer == answer


def kinds() -> set[str]:
    """The names of all classes of tasks."""

    def below(kind: type) -> set[type]:
        return {kind}.union(*map(below, kind.__subclasses__()))

    return {kind.__name__ for kind in below(Task)}


def test_nobody_outside_asks_for_the_kind_of_a_task() -> None:
    known = kinds()
    assert {"TextGeneration", "Classification", "Cloze", "Tagging", "Question"} <= known
    for file in SOURCE.rglob("*.py"):
        if file.is_relative_to(PACKAGE):
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or getattr(node.func, "id", "") != "isinstance":
                continue
            asked = {part.id for part in ast.walk(node.args[1]) if isinstance(part, ast.Name)}
            assert not asked & known, f"{file}, line {node.lineno}"


@pytest.mark.parametrize("name", STATED)
def test_the_other_verb_is_refused_by_name(tasks: dict[str, BoundTask], name: str) -> None:
    task = tasks[name].task
    task.check_verb(task.verb, "it")
    other = "predict" if task.verb == "generate" else "generate"
    with pytest.raises(UserError, match=f"^row 3 .*; use `{task.verb}`$"):
        task.check_verb(other, "row 3")


@pytest.mark.parametrize("name", STATED)
def test_the_backbone_alone_has_a_readout_of_its_own(
    tasks: dict[str, BoundTask], name: str
) -> None:
    alone = tasks[name].without_prompt()
    assert alone.model.placement.length == 0
    assert alone.model.readout is not tasks[name].model.readout
    assert alone.rows(example(1), labelled=False)[0].pair.source


def test_a_recipe_and_its_artifact_state_one_task() -> None:
    """What the recipe says goes over field by field; what the data settles is given."""
    recipe = parse_recipe(
        {
            "version": 1,
            "name": "one",
            "backbone": "foreword/mini",
            "task": {
                "data": {"format": "tsv", "train": "a.tsv", "dev": "b.tsv", "label": "kind"},
                "input": "{text:cut}",
                "second": "{other}",
                "max_tokens": 33,
                "head": {"hidden": 5},
                "metrics": ["matthews"],
            },
            "method": "prefix-tuning",
            "training": {"steps": 1},
        }
    )
    of_recipe = TaskId.of(recipe.task, labels=("a", "b"))
    assert of_recipe == TaskId.model_validate(of_recipe.model_dump(mode="json"))
    assert (of_recipe.format, of_recipe.label, of_recipe.answer) == ("tsv", "kind", "label")
    assert (of_recipe.max_tokens, of_recipe.second, of_recipe.head.hidden) == (33, "{other}", 5)
    assert of_recipe.metrics == ("matthews",)
    assert task_of(of_recipe).longest_input == 33


@pytest.mark.parametrize("labels", [("a",), ("a", "a"), ()])
@pytest.mark.parametrize("name", ["label", "label words", "labels", "tags"])
def test_fewer_than_two_labels_are_refused(name: str, labels: tuple[str, ...]) -> None:
    with pytest.raises(ArtifactError, match=r"^task\.labels: .*at least two"):
        task_of(stated(name).model_copy(update={"labels": labels}))
