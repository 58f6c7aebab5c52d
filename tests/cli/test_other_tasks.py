"""`foreword predict`, `evaluate` and `show` of several labels, numbers and choices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_commands import Command, foreword, refused, stdin

from foreword.backbone import Backbone
from foreword.runs import train

pytestmark = pytest.mark.usefixtures("loaded_once")

__all__ = ["foreword"]

ROWS = [
    {"text": "a grey bird", "tells": "colour", "words": 3, "a": "sings", "b": "is a town", "ok": 0},
    {
        "text": "a large bird",
        "tells": "size",
        "words": 3.5,
        "a": "is a town",
        "b": "sings",
        "ok": 1,
    },
    {"text": "a bird", "tells": "", "words": 2, "a": "sings", "b": "is a river", "ok": 0},
    {"text": "a large grey bird", "tells": "colour;size", "words": 4, "a": "x", "b": "y", "ok": 1},
]
TASKS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "labels": ({"label_list": "tells", "separator": ";"}, {"input": "{text}"}),
    "number": ({"number": "words"}, {"input": "{text}"}),
    "choice": (
        {"choices": ["a", "b"], "right": "ok"},
        {"input": "{text}", "target": " {reference}"},
    ),
}


@pytest.fixture(scope="module")
def trained(mini: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("other")
    file = folder / "all.csv"
    lines = [",".join(ROWS[0]), *(",".join(map(str, row.values())) for row in ROWS)]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    for name, (data, task) in TASKS.items():
        recipe = {
            "version": 1,
            "name": name,
            "backbone": "foreword/mini",
            "task": {
                "data": {"format": "csv", "train": str(file), "dev": str(file), **data},
                **task,
            },
            "method": {"name": "p-tuning-v2", "length": 2},
            "training": {"steps": 2, "batch_size": 2},
        }
        train(recipe, out=folder / name, backbone=mini, device="cpu")
    return folder


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_predict(foreword: Command, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (row,) = lines(foreword("predict", trained / "labels", "--text", "a grey bird").out)
    assert set(row) == {"input", "output", "probability", "probabilities"}
    assert isinstance(row["output"], list)
    assert set(row["probabilities"]) == {"colour", "size"}
    assert row["probability"] == [row["probabilities"][label] for label in row["output"]]
    (row,) = lines(foreword("predict", trained / "number", "--text", "a grey bird").out)
    assert set(row) == {"input", "output"}
    assert isinstance(row["output"], float)
    done = foreword("predict", trained / "choice", "--input", trained / "all.csv")
    first, *_ = found = lines(done.out)
    assert len(found) == len(ROWS)
    assert first["output"] in (ROWS[0]["a"], ROWS[0]["b"])
    assert first["output"] == first["ab"[first["chosen"][0]]]
    assert sum(first["probabilities"]) == pytest.approx(1)
    assert len(first["log_likelihoods"]) == 2
    line = json.dumps({"text": "a bird", "a": "sings", "b": "is a river"})
    stdin(monkeypatch, line.encode() + b"\n")
    (row,) = lines(foreword("predict", trained / "choice", "--input", "-").out)
    assert row["chosen"] == found[2]["chosen"]


def test_evaluate(foreword: Command, trained: Path) -> None:
    for name, titles in {
        "labels": ("micro F1 %", "macro F1 %", "samples F1 %"),
        "number": ("MSE (low is good)", "Pearson × 100", "Spearman × 100"),
        "choice": ("accuracy %",),
    }.items():
        done = foreword("evaluate", trained / name, "--data", trained / "all.csv")
        assert done.status == 0
        assert all(title in done.out for title in titles)
        assert "taken for" not in done.out
        foreword("evaluate", trained / name, "--data", trained / "all.csv", "--out", "it.json")
        figures = json.loads(Path("it.json").read_text("utf-8"))
        run = json.loads((trained / name / "metrics.json").read_text("utf-8"))
        assert figures["all"] == pytest.approx(run["prompt"]["all"], abs=1e-4)
        assert len(figures["answers"]) == len(ROWS)
        Path("it.json").unlink()


def test_show_and_ls(foreword: Command, trained: Path) -> None:
    shown = foreword("show", trained / "labels").out
    assert "answers    any of the labels colour (from 0." in shown
    assert "answers    a number (a head tells it as " in foreword("show", trained / "number").out
    shown = foreword("show", trained / "choice").out
    assert "answers    one of a row's own choices (a, b), by likelihood after the input\n" in shown
    card = (trained / "choice/artifact/README.md").read_text(encoding="utf-8")
    assert """echo '{"text": "...", "a": "...", "b": "..."}' | foreword predict""" in card
    assert "accuracy" in foreword("ls", trained).out


def test_a_finished_run_is_read_again(foreword: Command, trained: Path) -> None:
    for name in TASKS:
        recipe = trained / name / "recipe.yaml"
        again = foreword("train", recipe, "--out", trained / name, "--resume")
        assert again.status == 0
        assert "is finished already" in again.err
        assert "reference" in again.out


def test_mistakes(foreword: Command, trained: Path) -> None:
    refused(foreword("generate", trained / "labels", "--text", "x"), "tells several labels and")
    refused(foreword("generate", trained / "number", "--text", "x"), "tells a number and writes")
    said = "tells one of a row's own choices and writes no text"
    refused(foreword("generate", trained / "choice", "--input", trained / "all.csv"), said)
    refused(foreword("predict", trained / "choice", "--text", "x"), "give text, a, b by name")
    Path("in.jsonl").write_text('{"text": "x", "a": "y"}\n', encoding="utf-8")
    refused(
        foreword("predict", trained / "choice", "--input", "in.jsonl"),
        "in.jsonl, line 1: field 'b' is missing; expected a choice",
    )
    Path("in.csv").write_text("text,tells,words\nx,a;b,many\n", encoding="utf-8")
    refused(
        foreword("evaluate", trained / "number", "--data", "in.csv"),
        "in.csv, line 2, field 'words': expected a number, such as 3 or 0.25, found 'many'",
    )
    Path("in.csv").write_text("text,tells\nx,a;a\n", encoding="utf-8")
    refused(
        foreword("evaluate", trained / "labels", "--data", "in.csv"),
        "in.csv, line 2, field 'tells': the label 'a' stands twice",
    )
