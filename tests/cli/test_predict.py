"""`foreword predict`, and what `evaluate` and `show` say of an artifact with a head."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_commands import Command, foreword, refused, run, stdin

from foreword.backbone import Backbone
from foreword.runs import Run, train

pytestmark = pytest.mark.usefixtures("loaded_once")

__all__ = ["foreword", "run"]

HEAD = {"name": "p-tuning-v2", "length": 2}
ROWS = [("a good day", "yes"), ("a bad day", "no"), ("good", "yes"), ("bad", "no")]


def trained(mini: Backbone, out: Path, data: dict[str, object], **task: object) -> Run:
    recipe = {
        "version": 1,
        "name": "heads",
        "backbone": "foreword/mini",
        "task": {"data": data, **task},
        "method": HEAD,
        "training": {"steps": 2, "batch_size": 2},
    }
    return train(recipe, out=out, backbone=mini, device="cpu")


@pytest.fixture(scope="module")
def labelled(mini: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labels")
    lines = ["sentence\tanswer", *(f"{sentence}\t{label}" for sentence, label in ROWS)]
    (folder / "all.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    file = str(folder / "all.tsv")
    data = {"format": "tsv", "train": file, "dev": file, "label": "answer"}
    trained(mini, folder / "run", data, input="{sentence}")
    return folder


@pytest.fixture(scope="module")
def questions(mini: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("questions")
    answer = {"text": "Bo", "answer_start": 8}
    asked = [{"id": "1", "question": "Whom?", "answers": [answer]}]
    content = {"data": [{"title": "t", "paragraphs": [{"context": "Ana saw Bo.", "qas": asked}]}]}
    (folder / "all.json").write_text(json.dumps(content), encoding="utf-8")
    file = str(folder / "all.json")
    trained(mini, folder / "run", {"format": "squad", "train": file, "dev": file})
    return folder


def test_what_was_cut_is_said(foreword: Command, mini: Backbone, tmp_path: Path) -> None:
    """Of each answer, and in the table of what is measured."""
    lines = ["sentence\tanswer", *(f"{text}\t{label}" for text, label in ROWS)]
    file = tmp_path / "all.tsv"
    file.write_text("\n".join([*lines, f"{'good ' * 20}\tyes"]) + "\n", encoding="utf-8")
    data = {"format": "tsv", "train": str(file), "dev": str(file), "label": "answer"}
    task = {"input": "{sentence}", "truncate": "sentence", "max_tokens": 6}
    trained(mini, tmp_path / "run", data, **task)
    table = foreword("evaluate", tmp_path / "run", "--data", file)
    assert "5 records of" in " ".join(table.out.split())
    assert "1 of them cut to fit" in " ".join(table.out.split())
    table = foreword("evaluate", tmp_path / "run", "--data", file, "--limit", 4)
    assert "none cut to fit" in " ".join(table.out.split())
    done = foreword("predict", tmp_path / "run", "--text", "a day", "--text", "good " * 20)
    short, long = (json.loads(line) for line in done.out.splitlines())
    assert "truncated" not in short
    assert long["truncated"] is True


def test_labels_with_probabilities(
    foreword: Command, labelled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = foreword("predict", labelled / "run", "--text", "a good day", "--text", "bad")
    assert done.status == 0
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert [row["input"] for row in rows] == ["a good day", "bad"]
    for row in rows:
        assert set(row) == {"input", "output", "probability", "probabilities"}
        assert set(row["probabilities"]) == {"yes", "no"}
        assert row["probability"] == max(row["probabilities"].values())
    Path("in.jsonl").write_text('{"sentence": "bad", "id": 7}\n', encoding="utf-8")
    foreword("predict", labelled / "run", "--input", "in.jsonl", "--out", "out.jsonl")
    (row,) = map(json.loads, Path("out.jsonl").read_text("utf-8").splitlines())
    assert (row["id"], row["output"]) == (7, rows[1]["output"])
    stdin(monkeypatch, b"a good day\n\nbad\n")
    done = foreword("predict", labelled / "run", "--input", "-", "--limit", 1)
    row = json.loads(done.out)
    assert (row["input"], row["output"]) == ("a good day", rows[0]["output"])
    assert row["probability"] == pytest.approx(rows[0]["probability"], abs=1e-5)


def test_spans_with_scores(foreword: Command, questions: Path) -> None:
    line = json.dumps({"question": "Whom?", "context": "Ana saw Bo."})
    Path("in.jsonl").write_text(line + "\n", encoding="utf-8")
    done = foreword("predict", questions / "run", "--input", "in.jsonl")
    row = json.loads(done.out)
    assert row["context"][row["start"] :].startswith(row["output"])
    assert set(row) == {"question", "context", "output", "probability", "start", "score"}


def test_what_is_refused(foreword: Command, labelled: Path, questions: Path, run: Run) -> None:
    refused(foreword("predict", labelled / "run"), "--text", "--input")
    refused(foreword("predict", labelled / "none", "--text", "x"), "is no artifact")
    refused(foreword("predict", run.folder, "--text", "x"), "has no head; use `generate`")
    said = "tells a label and writes no text; use `predict`"
    refused(foreword("generate", labelled / "run", "--text", "x"), said)
    refused(foreword("predict", questions / "run", "--text", "x"), "`question` and `context`")
    Path("in.jsonl").write_text('{"sentense": "bad"}\n', encoding="utf-8")
    refused(foreword("predict", labelled / "run", "--input", "in.jsonl"), "did you mean 'sentense'")
    Path("in.jsonl").write_text('{"sentence": \n', encoding="utf-8")
    refused(foreword("predict", labelled / "run", "--input", "in.jsonl"), "in.jsonl, line 1")
    refused(foreword("predict", labelled / "run", "--text", "x", "--backbone", "nowhere"))
    assert not Path("out.jsonl").exists()


def test_evaluate_shows_which_label_was_taken_for_which(foreword: Command, labelled: Path) -> None:
    data = labelled / "all.tsv"
    done = foreword("evaluate", labelled / "run", "--data", data, "--out", "figures.json")
    for part in ("accuracy %", "taken for", "recall %", "precision %"):
        assert part in done.out
    figures = json.loads(Path("figures.json").read_text("utf-8"))
    run = json.loads((labelled / "run" / "metrics.json").read_text("utf-8"))
    assert figures["all"] == run["prompt"]["all"]
    assert Path("figures.png").read_bytes().startswith(b"\x89PNG")
    Path("other.tsv").write_text("sentence\tanswer\na day\tperhaps\n", encoding="utf-8")
    done = foreword("evaluate", labelled / "run", "--data", "other.tsv")
    assert done.status == 0
    assert "perhaps" in done.out
    Path("none.tsv").write_text("sentence\nx\n", encoding="utf-8")
    done = foreword("evaluate", labelled / "run", "--data", "none.tsv")
    refused(done, "none.tsv, line 2: field 'answer' is missing")
    done = foreword("evaluate", labelled / "run", "--data", data, "--format", "tvs")
    refused(done, "did you mean 'tsv'?")


def test_train_and_show_say_what_is_told(
    foreword: Command, labelled: Path, questions: Path
) -> None:
    done = foreword("show", labelled / "run")
    assert "answers    a label: no, yes" in done.out
    assert "target" not in done.out
    assert "decoding" not in done.out
    assert "answers    a span of the context\n" in foreword("show", questions / "run").out
    done = foreword("train", labelled / "run" / "recipe.yaml", "--device", "cpu", "--out", "again")
    assert done.status == 0
    assert "confusion again/confusion.png" in done.out
