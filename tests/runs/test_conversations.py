"""Conversations from a recipe to answers: trained, measured, asked, and stated by the artifact."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import foreword
from foreword.cli.app import app
from foreword.errors import DataError, RecipeError
from foreword.recipe import parse_recipe
from talks import OPENAI, SHAREGPT


def recipe(folder: Path, **task: Any) -> dict[str, Any]:
    for name, talk in (("train", OPENAI), ("dev", SHAREGPT)):
        rows = [json.dumps({"talk": talk, "id": number}) + "\n" for number in range(4)]
        (folder / f"{name}.jsonl").write_text("".join(rows), encoding="utf-8")
    data = {
        "format": "jsonl",
        "train": str(folder / "train.jsonl"),
        "dev": str(folder / "dev.jsonl"),
        "messages": "talk",
        "measured": "each",
    }
    return {
        "version": 1,
        "name": "talk",
        "backbone": "foreword/mini",
        "task": {"data": data, "chat_template": "plain", **task},
        "method": {"name": "prefix-tuning", "length": 2, "reparameterization": "table"},
        "training": {"steps": 2, "batch_size": 2},
        "decoding": {"max_new_tokens": 4},
    }


def test_a_conversation_end_to_end(tmp_path: Path, mini: Any) -> None:
    run = foreword.train(recipe(tmp_path), out=tmp_path / "run", backbone=mini)
    assert run.metrics["examples"] == 12  # three turns of each of the four
    assert set(run.metrics["prompt"]["all"]) == {"bleu", "chrf", "ter"}
    prompt = foreword.load(run.artifact, backbone=mini)
    assert (prompt.manifest.task.answer, prompt.manifest.task.messages) == ("turns", "talk")
    asked = OPENAI[:2]
    answers = prompt.generate([{"talk": asked}, asked, {"talk": OPENAI[:3]}])
    assert answers[0] == answers[1] == answers[2]
    with pytest.raises(DataError, match=r"input 1, field 'talk', message 1.*no role"):
        prompt.generate([[{"role": "usr", "content": "Hi"}]])
    with pytest.raises(DataError, match=r"half a character"):
        prompt.generate([[{"role": "user", "content": "\ud800"}]])
    file = tmp_path / "in.jsonl"
    file.write_text(json.dumps({"talk": asked, "id": 3}) + "\n", encoding="utf-8")
    cli = CliRunner()
    written = cli.invoke(app, ["generate", str(tmp_path / "run"), "--input", str(file)])
    row = json.loads(written.stdout)
    assert row == {"talk": asked, "id": 3, "output": answers[0]}
    shown = cli.invoke(app, ["show", str(tmp_path / "run")])
    assert "a conversation in the column 'talk'" in shown.stdout
    assert "plain" in shown.stdout
    card = (run.artifact / "README.md").read_text(encoding="utf-8")
    assert "lists of messages in the column `talk`" in card


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"input": "{text}"}, "`input` is not read beside `data.messages`"),
        ({"target": " {reference}"}, "`target` is not read beside"),
        ({"truncate": "text"}, "a conversation is cut in the column"),
        ({"chat_template": "chatlm"}, "chat_template"),
        ({"chat_options": {"tools": "x"}}, "`chat_options` has 'tools'"),
        (
            {"metrics": ["accuracy"]},
            "measures a label or one of a row's own choices",
        ),
    ],
)
def test_what_does_not_go_with_conversations(
    tmp_path: Path, task: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        parse_recipe(recipe(tmp_path, **task))


def test_columns_that_are_of_conversations_alone(tmp_path: Path) -> None:
    raw = recipe(tmp_path)
    raw["task"]["data"] |= {"label": "id"}
    with pytest.raises(RecipeError, match="give one of `messages`, `label`"):
        parse_recipe(raw)
    raw = recipe(tmp_path)
    del raw["task"]["data"]["messages"]
    with pytest.raises(RecipeError, match="`tools` and `measured` are for conversations"):
        parse_recipe(raw)
