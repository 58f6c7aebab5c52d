"""What the commands say before anything slow is done, and how wide their tables are."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from rich.text import Text
from test_commands import QUICKSTART, Command, foreword, refused

from foreword.cli import catalogue

__all__ = ["foreword"]


@pytest.fixture
def nothing_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever imports torch fails."""
    for module in ("foreword.runs", "foreword.runs.preview"):
        monkeypatch.setitem(sys.modules, module, None)


@pytest.mark.usefixtures("nothing_slow")
@pytest.mark.parametrize("resume", [[], ["--resume"]])
def test_a_folder_that_cannot_be_a_runs_is_refused_at_once(
    foreword: Command, resume: list[str]
) -> None:
    Path("file").write_text("x", encoding="utf-8")
    for out in ("file", "file/below"):
        done = foreword("train", QUICKSTART, "--out", out, *resume)
        refused(done, f"{out}: cannot be made a folder: ")
    Path("taken").mkdir()
    Path("taken/recipe.yaml").write_text("x", encoding="utf-8")
    if not resume:
        done = foreword("train", QUICKSTART, "--out", "taken")
        refused(done, "holds an unfinished run; go on with the run by --resume")
    Path("runs").write_text("x", encoding="utf-8")
    refused(foreword("train", QUICKSTART, *resume), "runs: cannot be made a folder: ")


@pytest.mark.usefixtures("nothing_slow")
def test_a_dry_run_that_resumes_is_refused_at_once(foreword: Command) -> None:
    refused(foreword("train", QUICKSTART, "--dry-run", "--resume"), "--resume has nothing to go on")


@pytest.mark.usefixtures("nothing_slow")
def test_what_an_override_took_the_place_of_is_said_on_stderr(foreword: Command) -> None:
    Path("runs").write_text("x", encoding="utf-8")
    done = foreword("train", QUICKSTART, "--set", "training.epochs=1", "--seed", "-1")
    assert done.status == 2
    done = foreword("train", QUICKSTART, "--set", "training.epochs=1", "--limit", "5")
    first, second = done.err.splitlines()
    assert first.startswith("--set training.epochs=1: takes the place of training.steps=")
    assert "runs: cannot be made a folder" in second
    assert done.out == ""


def test_show_of_a_run_that_has_not_ended(foreword: Command) -> None:
    Path("runs/stopped").mkdir(parents=True)
    Path("runs/stopped/recipe.yaml").write_text("x", encoding="utf-8")
    command = "`foreword train runs/stopped/recipe.yaml --out runs/stopped --resume`"
    refused(foreword("show", "runs/stopped"), f"has not ended, and so no artifact yet; {command}")


ENTRY: dict[str, Any] = {
    "artifact": "runs/a-name-of-some-length/artifact",
    "bytes": 123_456_000,
    "method": "prefix-tuning",
    "length": 1000,
    "backbone": "foreword/mini-seq2seq",
    "scores": {"bleu": 76.5, "chrf": 85.4, "ter": 20.1, "slot_coverage": 98.5},
}


@pytest.mark.parametrize("width", [60, 80, 100])
def test_a_terminal_shows_numbers_whole(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes that for a terminal
    monkeypatch.setenv("COLUMNS", str(width))
    catalogue._print_list(Path("runs"), [ENTRY], {})
    printed = capsys.readouterr().out
    for shown in ("kB", "123456", "tokens", "1000"):
        assert shown in printed
    assert max(map(len, Text.from_ansi(printed).plain.splitlines())) <= width


def test_a_pipe_gets_a_line_for_each_artifact(capsys: pytest.CaptureFixture[str]) -> None:
    catalogue._print_list(Path("runs"), [ENTRY, ENTRY], {})
    lines = [line for line in capsys.readouterr().out.splitlines() if "runs/" in line]
    assert len(lines) == 2
    for line in lines:
        assert line.split()[0] == ENTRY["artifact"]
        assert line.split()[-1] == "123456"
        assert "slots % 98.5" in line
