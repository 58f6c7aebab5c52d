"""Text from outside is never markup, and its control characters reach no terminal."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from foreword.backbone import Backbone
from foreword.cli import main
from foreword.cli.output import emit, emit_json, say
from foreword.cli.tables import pattern_table, print_table, score_table
from foreword.common.progress import Bar, PlainLog
from foreword.runs import Run, train
from foreword.scoring.confusion import confusion_matrix

QUICKSTART = Path(__file__).resolve().parents[2] / "recipes" / "quickstart.yaml"
ODD = "[/b] [red]x[/red] :smile: \x1b]0;title\x07 \x9b31m \r"
SHOWN = r"[/b] [red]x[/red] :smile: \x1b]0;title\x07 \x9b31m \r"
"""ODD as a person may read it."""
SMALL = [
    "training.steps=1",
    "training.batch_size=2",
    "task.limits.train=2",
    "task.limits.dev=2",
    "task.limits.test=2",
    "decoding.max_new_tokens=2",
    "method.length=1",
    "method.reparameterization.kind=table",
    "evaluation.backbone_alone=false",
]


def obeyed(text: str) -> set[str]:
    """What of a text a terminal would obey."""
    return {c for c in text if (c < " " and c not in "\t\n") or "\x7f" <= c < "\xa0"}


@pytest.fixture(scope="module")
def run(mini: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose data, groups and folder have names that look like markup."""
    folder = tmp_path_factory.mktemp("odd")
    rows = [
        {"record": {"name": f"a {i} [/b]"}, "references": "x [/b]", "kind": ODD} for i in range(3)
    ]
    data = folder / "[b] data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    files = [f'task.data.{split}="{data}"' for split in ("train", "dev", "test")]
    overrides = [*SMALL, *files, "task.data.group=kind"]
    return train(QUICKSTART, overrides=overrides, out=folder / "[/b]", backbone=mini, device="cpu")


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def foreword(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.setenv("COLUMNS", "400")

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["foreword", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0), *capsys.readouterr()

    return run


def test_ls_and_show_of_odd_names(run: Run, foreword: Command, tmp_path: Path) -> None:
    shutil.copytree(run.folder, tmp_path / "[/b]")
    status, out, _ = foreword("ls", tmp_path)
    assert status == 0
    assert "[/b]/artifact" in out.replace("\n", "").replace(" ", "")
    status, out, _ = foreword("show", tmp_path / "[/b]")
    assert status == 0
    assert "quickstart" in out
    assert not obeyed(out)


def test_evaluate_reports_odd_groups(run: Run, foreword: Command) -> None:
    data = run.recipe.task.data.test
    status, out, err = foreword("evaluate", run.folder, "--data", data, "--device", "cpu")
    assert status == 0
    assert "[/b]" in out
    assert not obeyed(out + err)


def test_a_finished_run_is_printed(
    run: Run, foreword: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was measured must not fail while its table is drawn."""
    monkeypatch.setattr("foreword.runs.train", lambda *_, **__: run)
    status, out, _ = foreword("train", QUICKSTART)
    assert status == 0
    assert "[red]x[/red]" in out
    assert not obeyed(out)


def test_tables_show_every_text_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(score_table(ODD, {ODD: {ODD: {ODD: 1.0}}}))
    row = {"generation": 0, "text": ODD, "weight": 1.0, "accuracy": 1.0}
    figures = {"labelled": 1, "unlabelled": 1, "ensemble_accuracy": 1.0}
    print_table(pattern_table({"patterns": [row], **figures}))
    print_table(confusion_matrix([ODD, "b"], [ODD, ODD], [ODD, "b"]).table(ODD))
    shown = capsys.readouterr().out
    assert not obeyed(shown)
    joined = "".join(shown.split())
    for part in ("[/b]", "[red]x[/red]", ":smile:", r"\x1b]0;title\x07", r"\x9b31m"):
        assert joined.count(part) >= 6, part


def test_lines_show_every_text_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    say(ODD)
    PlainLog().say(ODD)
    assert capsys.readouterr() == (SHOWN + "\n", SHOWN + "\n")
    emit_json({ODD: ODD})
    printed = capsys.readouterr().out
    assert json.loads(printed) == {ODD: ODD}
    assert not obeyed(printed)


def test_bars_show_every_text_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    bar = Bar()
    bar.begin(ODD, 1)
    bar.advance(note=ODD)
    bar.say(ODD)
    bar.end()
    assert not obeyed(stderr.getvalue())
    assert "".join(stderr.getvalue().split()).count("[red]x[/red]:smile:") >= 3


def test_refused_arguments_are_shown_as_they_are(foreword: Command) -> None:
    for words in (["ls", f"--{ODD}"], [ODD], ["ls", "a", ODD], ["train", "x", "--device", ODD]):
        status, out, err = foreword(*words)
        assert (status, out) == (2, "")
        assert "[/b] [red]x[/red]" in err
        assert not obeyed(err)


def test_an_output_of_another_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines for people have escapes there, JSON stays JSON."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="latin-1"))
    say("ü 火")
    emit('{"a": "ü 火🙂"}\n')
    line, row = raw.getvalue().decode("latin-1").splitlines()
    assert line == "ü \\u706b"
    assert json.loads(row) == {"a": "ü 火🙂"}
