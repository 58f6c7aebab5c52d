"""What the operating system refuses ends in one line of our own and the right exit status."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from foreword.cli.system import as_our_own
from foreword.data import read_examples
from foreword.errors import BackboneError, DataError, ForewordError, RunError, UserError
from foreword.recipe import load_recipe

QUICKSTART = Path(__file__).resolve().parents[2] / "recipes" / "quickstart.yaml"
LONG = "x" * 300


def shell(words: Sequence[str], redirections: str, folder: Path) -> tuple[int, str, str]:
    """A command of its own process, with the shell's redirections: its status and what it said."""
    done = subprocess.run(
        ["bash", "-c", f'"$0" -m foreword "$@" {redirections}', sys.executable, *words],
        cwd=folder,
        capture_output=True,
        timeout=120,
    )
    out, err = done.stdout.decode(), done.stderr.decode()
    assert "Traceback" not in out + err
    assert "Exception ignored" not in err
    return done.returncode, out, err


@pytest.mark.parametrize(
    ("words", "place", "why"),
    [
        (["ls"], ">/dev/full", os.strerror(errno.ENOSPC)),
        (["recipe-schema"], ">&-", os.strerror(errno.EBADF)),
        (["recipe-schema"], ">/dev/full", os.strerror(errno.ENOSPC)),
        (["ls", "--json"], ">&-", os.strerror(errno.EBADF)),
        (["--version"], ">/dev/full", os.strerror(errno.ENOSPC)),
    ],
)
def test_a_standard_output_that_takes_nothing_is_a_failure(
    words: list[str], place: str, why: str, tmp_path: Path
) -> None:
    status, out, err = shell(words, place, tmp_path)
    assert (status, out) == (1, "")
    assert err == f"foreword: standard output: cannot be written: {why}\n"


@pytest.mark.parametrize(
    ("words", "status"),
    [(["ls"], 0), (["ls", "--bad"], 2), (["show", "nope"], 2), (["train", "none.yaml"], 2)],
)
def test_a_standard_error_that_takes_nothing_changes_nothing(
    words: list[str], status: int, tmp_path: Path
) -> None:
    """A message that nobody can read must not stand in the results either."""
    out = shell(words, "", tmp_path)[1]
    for place in ("2>&-", "2>/dev/full"):
        assert shell(words, place, tmp_path) == (status, out, "")


def test_a_file_is_never_opened_in_the_place_of_a_closed_stream(tmp_path: Path) -> None:
    status, out, _ = shell(["ls", "nowhere"], "0<&- 2>&-", tmp_path)
    assert status == 0
    assert out.startswith("no artifacts below nowhere")


def test_a_reader_that_goes_away_is_no_failure(tmp_path: Path) -> None:
    words = 'recipe-schema | head -c 1; exit "${PIPESTATUS[0]}"'
    done = subprocess.run(
        ["bash", "-c", f'"$0" -m foreword {words}', sys.executable],
        cwd=tmp_path,
        capture_output=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"{", b"")


def test_a_working_folder_that_was_removed(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    code = 'rmdir "$PWD"; "$0" -m foreword "$@"'
    done = subprocess.run(
        ["bash", "-c", code, sys.executable, "train", str(QUICKSTART)],
        cwd=gone,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "foreword: the working folder is not there any more; change to a folder that exists\n"
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["show", LONG], "File name too long"),
        (["ls", LONG], "File name too long"),
        (["train", LONG], "File name too long"),
        (["train", "loop"], "Too many levels of symbolic links"),
        (["show", "loop"], "Too many levels of symbolic links"),
        (["score", LONG], "File name too long"),
        (["score", "loop"], "Too many levels of symbolic links"),
    ],
)
def test_names_that_lead_nowhere(words: list[str], said: str, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    status, out, err = shell(words, "", tmp_path)
    assert (status, out) == (2, "")
    assert err.startswith("foreword: ")
    assert said in err


@pytest.mark.parametrize(
    ("name", "said"),
    [(LONG, "File name too long"), ("loop", "Too many levels"), (f"{LONG}/a", "too long")],
)
def test_data_whose_name_leads_nowhere(
    name: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    recipe = load_recipe(QUICKSTART, [f"task.data.train={name}"])
    for path in (recipe.task.data.train, name):
        assert path is not None
        with pytest.raises(DataError, match=said):
            read_examples(path, "jsonl")


@pytest.mark.parametrize("words", [["show", "\udcff"], ["ls", "\udcff\udcfe"]])
def test_names_that_are_not_utf8_are_shown_as_escapes(words: list[str], tmp_path: Path) -> None:
    status, out, err = shell(words, "", tmp_path)
    assert status == (2 if words[0] == "show" else 0)
    assert "\\udcff" in out + err


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), RunError, "No space left on device"),
        (OSError(errno.EIO, "Input/output error", "a"), RunError, "a: Input/output error"),
        (FileNotFoundError(errno.ENOENT, "No such file", b"a\xff"), UserError, "a\udcff: No such"),
        (OSError(errno.EXDEV, "Cross-device link", "a", None, "b"), UserError, "a, b: Cross"),
        (RuntimeError("Symlink loop from '/a'"), UserError, "'/a': a loop of links"),
        (BackboneError("x"), BackboneError, "x"),
    ],
)
def test_errors_of_the_system_become_our_own(
    error: BaseException, kind: type[ForewordError], said: str
) -> None:
    own = as_our_own(error)
    assert type(own) is kind
    assert str(own).startswith(said)


def test_half_a_character_becomes_our_own() -> None:
    with pytest.raises(UnicodeEncodeError) as raised:
        "a\ud800".encode()
    own = as_our_own(raised.value)
    assert isinstance(own, UserError)
    assert "half a character ('\\ud800')" in str(own)


@pytest.mark.parametrize("error", [RuntimeError("x"), KeyError("x"), OSError("no number")])
def test_mistakes_of_the_program_stay_what_they_are(error: BaseException) -> None:
    assert as_our_own(error) is None
