"""`foreword score`: figures on stdout, absent ones said, mistakes end with 2, no torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from foreword.cli import main
from foreword.scoring import java

KEYS = ["BLEU", "NIST", "METEOR", "ROUGE_L", "CIDEr"]
NEEDS = "absent (needs Java: pip install 'foreword[metrics]')"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("o.txt").write_text("The cat sat down .\nA dog barks now .\n", encoding="utf-8")
    Path("r.txt").write_text(
        "The cat sat down .\nA cat sat .\n\nThe dog barks now .\n", encoding="utf-8"
    )
    return tmp_path


@pytest.fixture
def no_java(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(java, "find_java", lambda: None)


def run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["foreword", "score", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    printed = capsys.readouterr()
    assert "Traceback" not in printed.out + printed.err
    return int(end.value.code or 0), printed.out, printed.err


@pytest.mark.usefixtures("files", "no_java")
def test_without_java(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    status, out, err = run(capsys, monkeypatch, "o.txt", "r.txt")
    assert (status, err) == (0, "")
    assert out.count(NEEDS) == 3
    assert "BLEU" in out
    status, out, err = run(capsys, monkeypatch, "o.txt", "r.txt", "--json")
    found = json.loads(out)
    assert (status, err) == (0, "")
    assert list(found)[:5] == KEYS
    assert [found[key] is None for key in KEYS] == [False, False, True, True, True]
    assert set(found["intervals"]) == {"BLEU", "NIST"}
    assert found["absent"] == dict.fromkeys(KEYS[2:], java.ADVICE)
    assert found["segments"] == 2
    assert 0 < found["BLEU"] < 1


@pytest.mark.usefixtures("files")
def test_some_metrics_samples_and_seed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = ["o.txt", "r.txt", "--json", "--metrics", "NIST, bleu,chrf,ter,bleu"]
    status, out, _ = run(capsys, monkeypatch, *chosen, "--samples", "20", "--seed", "3")
    found = json.loads(out)
    assert status == 0
    assert list(found)[:4] == ["NIST", "BLEU", "chrF", "TER"]
    assert found["bootstrap"] == {"samples": 20, "seed": 3, "level": 0.95}
    for key in ("NIST", "BLEU", "chrF", "TER"):
        low, high = found["intervals"][key]
        assert low <= found[key] <= high
    _, out, _ = run(capsys, monkeypatch, *chosen, "--samples", "0")
    assert json.loads(out)["intervals"] == {}


@pytest.mark.usefixtures("files")
def test_our_own_answers_hold_their_references(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        {"input": "x", "output": "The cat sat down .", "references": ["The cat sat down ."]},
        {"input": "y", "output": "A dog barks now .", "references": ["A dog barks now ."]},
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    Path("answers.jsonl").write_text(text, encoding="utf-8")
    status, out, _ = run(capsys, monkeypatch, "answers.jsonl", "--metrics", "bleu", "--json")
    assert status == 0
    assert json.loads(out)["BLEU"] == pytest.approx(1)


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["o.txt"], "o.txt: is plain text"),
        (["o.txt", "nowhere.txt"], "nowhere.txt: no such file"),
        (["r.txt", "o.txt"], "r.txt has 4 outputs"),
        (["o.txt", "r.txt", "--metrics", "blue"], "did you mean 'bleu'"),
        (["o.txt", "r.txt", "--metrics", ""], "'' is not known"),
        (["o.txt", "r.txt", "--samples", "-1"], "--samples"),
        ([], "OUTPUTS"),
    ],
)
def test_mistakes_end_with_2(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    status, out, err = run(capsys, monkeypatch, *arguments)
    assert (status, out) == (2, "")
    assert message in err


def test_nothing_heavy_is_imported(files: Path) -> None:
    code = (
        "import sys; from foreword.cli import main; sys.argv = "
        "['foreword', 'score', 'o.txt', 'r.txt', '--metrics', 'bleu,nist,rouge_l,chrf']\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "sys.exit(' '.join({'torch', 'transformers', 'datasets'} & sys.modules.keys()) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=files, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
