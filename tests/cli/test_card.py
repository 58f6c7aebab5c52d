"""The command that an artifact's card shows answers, for every kind of task."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from test_commands import Command, foreword, stdin

from foreword.artifacts.artifact import save_artifact
from foreword.backbone import Backbone, load_backbone
from foreword.methods import HeadOnly, PrefixTuning
from foreword.recipe import TaskId
from foreword.tasks import task_of
from foreword.tuned.compose import compose

pytestmark = pytest.mark.usefixtures("loaded_once")

__all__ = ["foreword"]

LABELS = {"answer": "label", "labels": ("yes", "no")}
TASKS = {
    "text": {"input": "{record}\n"},
    "fields": {"input": "{it's} and {name}"},
    "label": {"input": "{text}", **LABELS},
    "two texts": {"input": "{text}", "second": "{other}", **LABELS},
    "label words": {
        "input": "{text} {mask}",
        **LABELS,
        "verbalizer": {"words": {"yes": "good", "no": "bad"}},
    },
    "tags": {"input": "", "answer": "tags", "labels": ("O", "B-X")},
    "span": {"input": "", "answer": "span"},
    "word": {"input": "{text} {mask}", "answer": "word"},
}


@pytest.fixture(scope="module")
def own() -> Backbone:
    return load_backbone("foreword/mini", device="cpu")


@pytest.mark.parametrize("name", TASKS)
def test_the_command_of_the_card_answers(
    name: str, own: Backbone, tmp_path: Path, foreword: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    stated = TaskId.model_validate({"target": "{reference}", **TASKS[name]})
    task = task_of(stated)
    method = HeadOnly(name="head-only") if stated.has_head else PrefixTuning(name="prefix-tuning")
    save_artifact(
        tmp_path / "it",
        compose(own, method, task.readout(own)),
        name="it",
        method=method,
        task=stated,
    )
    card = (tmp_path / "it" / "README.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"```\n(.*?)\n```", card, re.DOTALL)
    words = shlex.split(command.replace("THIS_FOLDER", str(tmp_path / "it")))
    if "|" in words:
        (echo, row, pipe), words = words[:3], words[3:]
        assert (echo, pipe) == ("echo", "|")
        stdin(monkeypatch, f"{row}\n".encode())
    assert words.pop(0) == "foreword"
    done = foreword(*words, "--device", "cpu")
    assert done.status == 0, done.err
    (line,) = done.out.splitlines()
    assert "output" in json.loads(line)
