"""Inputs of every kind through the verbs; streams are answered while they arrive."""

from __future__ import annotations

import io
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from test_commands import Command, foreword, refused, run, stdin
from test_predict import labelled

from foreword.cli import destination
from foreword.runs import Run

pytestmark = pytest.mark.usefixtures("loaded_once")

__all__ = ["foreword", "labelled", "run"]


def rows(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_table_is_read_by_its_ending_or_format(foreword: Command, labelled: Path) -> None:
    """The header is no input, and a quoted cell is one."""
    content = 'id,sentence,answer\n7,"a good day",yes\n8,bad,\n'
    Path("x.csv").write_text(content, encoding="utf-8")
    Path("x.dat").write_text(content.replace(",", "\t").replace('"', ""), encoding="utf-8")
    for words in (["x.csv"], ["x.dat", "--format", "tsv"]):
        done = foreword("predict", labelled / "run", "--input", *words)
        assert done.status == 0
        first, second = rows(done.out)
        assert (first["id"], first["sentence"], first["answer"]) == ("7", "a good day", "yes")
        assert first["output"] in ("yes", "no")
        assert second["id"] == "8"
    text = foreword("predict", labelled / "run", "--text", "a good day")
    assert rows(text.out)[0]["output"] == first["output"]
    Path("y.csv").write_text("wrong\nx\n", encoding="utf-8")
    done = foreword("predict", labelled / "run", "--input", "y.csv")
    refused(done, "y.csv, line 2: template '{sentence}': the data has no field 'sentence'")


def test_records_of_the_tasks_own_format(foreword: Command, run: Run) -> None:
    Path("x.csv").write_text("mr\nname[Silver Piper]\n", encoding="utf-8")
    done = foreword("generate", run.artifact, "--input", "x.csv", "--format", "e2e")
    assert rows(done.out)[0]["record"] == {"name": "Silver Piper"}


def test_inputs_of_another_encoding(
    foreword: Command, labelled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = "sentence\n房间很大\n".encode("gb18030")
    Path("x.csv").write_bytes(raw)
    done = foreword("predict", labelled / "run", "--input", "x.csv")
    refused(done, "x.csv, line 2: not UTF-8 text", "as `encoding` (gb18030")
    for words in (["x.csv"], ["-", "--format", "csv"]):
        stdin(monkeypatch, raw)
        done = foreword("predict", labelled / "run", "--encoding", "gb18030", "--input", *words)
        assert rows(done.out)[0]["sentence"] == "房间很大"
    data = "sentence\tanswer\n房\tyes\n".encode("gb18030")
    Path("x.tsv").write_bytes(data)
    evaluate = ["evaluate", labelled / "run", "--data", "x.tsv"]
    refused(foreword(*evaluate), "x.tsv, line 2: not UTF-8 text")
    assert foreword(*evaluate, "--encoding", "gb18030").status == 0
    refused(foreword(*evaluate, "--encoding", "base64"), "expected the name of a text encoding")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"sentence": null}\n', "x.jsonl, line 1, field 'sentence': is null; expected a text"),
        ('{"sentence": ["a", 1]}\n', "x.jsonl, line 1, field 'sentence': expected a text"),
        ('{"other": 1}\n', "x.jsonl, line 1: template '{sentence}': the data has no field"),
    ],
)
def test_fields_that_hold_no_text(
    content: str, said: str, foreword: Command, labelled: Path
) -> None:
    Path("x.jsonl").write_text(content, encoding="utf-8")
    refused(foreword("predict", labelled / "run", "--input", "x.jsonl"), said)


def test_fields_that_hold_no_text_are_named_by_evaluate(foreword: Command, run: Run) -> None:
    Path("x.jsonl").write_text('{"record": null, "references": "a", "seen": 1}\n', "utf-8")
    done = foreword("evaluate", run.artifact, "--data", "x.jsonl")
    refused(done, "x.jsonl, line 1, field 'record': is null; expected a text")


def test_bytes_that_are_no_text(foreword: Command, labelled: Path) -> None:
    done = foreword("predict", labelled / "run", "--text", "a\udcff")
    refused(done, "--text 1: is no text that can be read: it holds half a character ('\\udcff')")


@pytest.mark.parametrize("through", ["-", "fifo"])
def test_a_stream_is_answered_line_by_line(
    through: str,
    foreword: Command,
    labelled: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    """Each line is written when the one before is answered; empty ones do not hold an answer up."""
    lines = [b"a good day\n\n", b"bad\n", b"good"]
    if through == "-":
        reading, writing = os.pipe()
        given = io.TextIOWrapper(os.fdopen(reading, "rb"))
        monkeypatch.setattr(sys, "stdin", given)
        request.addfinalizer(given.close)
    else:
        through = str(tmp_path / "fifo")
        os.mkfifo(through)
        writing = os.open(through, os.O_RDWR)
    written = [lines[0]]
    os.write(writing, lines[0])
    answered: list[int] = []
    real = destination.emit

    def emit(text: str) -> None:
        real(text)
        answered.append(len(written))
        if len(written) < len(lines):
            written.append(lines[len(written)])
            os.write(writing, written[-1])
        if len(written) == len(lines):
            hang_up()

    closed: list[bool] = []

    def hang_up() -> None:
        if not closed:
            closed.append(True)
            os.close(writing)

    monkeypatch.setattr(destination, "emit", emit)
    watchdog = threading.Timer(60, hang_up)  # where all is read before anything is answered
    watchdog.start()
    done = foreword("predict", labelled / "run", "--input", through)
    watchdog.cancel()
    assert done.status == 0
    assert [row["input"] for row in rows(done.out)] == ["a good day", "bad", "good"]
    assert answered == [1, 2, 3]


def test_lines_that_are_there_are_answered_together(
    foreword: Command, labelled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups: list[int] = []
    real = destination.emit

    def emit(text: str) -> None:
        groups.append(text.count("\n"))
        real(text)

    monkeypatch.setattr(destination, "emit", emit)
    stdin(monkeypatch, b"good\n\n" * 7)
    done = foreword("predict", labelled / "run", "--input", "-", "--batch-size", 3, "--text", "x")
    assert groups == [3, 3, 2]
    assert len(rows(done.out)) == 8


def test_as_many_rows_as_memory_has_room_for(foreword: Command, labelled: Path) -> None:
    given = ("predict", labelled / "run", "--text", "good", "--text", "a bad day")
    expected = foreword(*given, "--batch-size", 2)
    assert rows(foreword(*given, "--batch-size", "auto").out) == rows(expected.out)
    for wrong in ("0", "many", "1000001"):
        done = foreword(*given, "--batch-size", wrong)
        refused(done, f"'{wrong}' is neither a number from 1 to 1,000,000 nor auto")


def test_a_mistake_in_a_stream_keeps_what_was_answered(
    foreword: Command, labelled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stdin(monkeypatch, b'{"sentence": "good"}\n{"sentence": \n')
    done = foreword("predict", labelled / "run", "--input", "-", "--batch-size", 1)
    assert done.status == 2
    assert [row["sentence"] for row in rows(done.out)] == ["good"]
    assert "standard input, line 2, column" in done.err
    stdin(monkeypatch, b"x\n")
    done = foreword("predict", labelled / "run", "--input", "-", "--format", "parquet")
    refused(done, "format 'parquet' is not read line by line; give text, jsonl, csv, tsv")


def test_a_closed_standard_input(
    foreword: Command, labelled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    done = foreword("predict", labelled / "run", "--input", "-")
    refused(done, "standard input: is closed; give a file's name with --input")


@pytest.mark.parametrize("verb", ["generate", "predict", "evaluate"])
def test_a_file_that_is_there_is_replaced_only_when_asked_to(
    verb: str, foreword: Command, run: Run, labelled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = ["--data", labelled / "all.tsv"] if verb == "evaluate" else ["--text", "x"]
    folder = run.artifact if verb == "generate" else labelled / "run"
    words = [verb, folder, *inputs, "--out", "out.json"]
    Path("out.json").write_text("mine", encoding="utf-8")
    with monkeypatch.context() as patch:
        patch.setattr("foreword.session.load", lambda *_, **__: pytest.fail("work was begun"))
        done = foreword(*words)
    refused(done, "out.json: is there already; replace it with --overwrite, or name another file")
    assert Path("out.json").read_text(encoding="utf-8") == "mine"
    assert foreword(*words, "--overwrite").status == 0
    assert "output" in Path("out.json").read_text(encoding="utf-8")
    Path("out.json").write_bytes(b"")
    Path("out.png").unlink(missing_ok=True)
    assert foreword(*words).status == 0, "an empty file loses nothing"


def test_evaluate_keeps_a_picture_that_is_there(foreword: Command, labelled: Path) -> None:
    Path("out.png").write_bytes(b"mine")
    words = ["evaluate", labelled / "run", "--data", labelled / "all.tsv", "--out", "out.json"]
    refused(foreword(*words), "out.png: is there already")
    assert Path("out.png").read_bytes() == b"mine"
    assert not Path("out.json").exists()
