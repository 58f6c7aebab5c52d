"""The confusion matrix: counts against scikit-learn's, the table, the picture."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.image import imread
from rich.console import Console
from sklearn import metrics as sklearn

from foreword.scoring import ConfusionMatrix, confusion_matrix
from foreword.scoring.confusion import OTHER


def cells(matrix: ConfusionMatrix, title: str = "") -> list[list[str]]:
    """What the table says, row by row, without the rule below its head."""
    console = Console(width=80, file=io.StringIO())
    console.print(matrix.table(title))
    lines = console.file.getvalue().splitlines()
    return [line.split() for line in lines if line.strip() and "──" not in line]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=1, max_size=30))
def test_counts_are_scikit_learns(rows: list[tuple[str, str]]) -> None:
    gold, found = [a for a, _ in rows], [b for _, b in rows]
    theirs = sklearn.confusion_matrix(gold, found, labels=list("abc"))
    matrix = confusion_matrix(gold, found, "abc")
    assert matrix.labels == matrix.answers == ("a", "b", "c")
    assert (matrix.counts == theirs).all()


def test_answers_that_are_no_label() -> None:
    matrix = confusion_matrix(["no", "yes", "no"], ["no", "perhaps", ""], ["yes"])
    assert matrix.as_json() == {
        "labels": ["yes", "no"],
        "answers": ["yes", "no", OTHER],
        "counts": [[0, 0, 1], [0, 1, 1]],
    }


def test_table() -> None:
    assert cells(confusion_matrix(list("aaab"), list("aabb")), "dev") == [
        ["dev"],
        ["label", "a", "b", "recall", "%"],
        ["a", "2", "1", "66.7"],
        ["b", "0", "1", "100.0"],
        ["precision", "%", "100.0", "50.0"],
    ]
    assert cells(confusion_matrix(["a"], ["x"], ["[b]"])) == [
        ["label", "[b]", "a", OTHER, "recall", "%"],
        ["[b]", "0", "0", "0", "–"],
        ["a", "0", "0", "1", "0.0"],
        ["precision", "%", "–", "–"],
    ]


@pytest.mark.usefixtures("with_pictures")
@pytest.mark.parametrize("labels", ["ab", ("好评", "$差$ $"), tuple(map(str, range(12)))])
def test_picture(labels: tuple[str, ...], tmp_path: Path) -> None:
    file = tmp_path / "new" / "confusion.png"
    confusion_matrix(labels, labels[::-1]).draw(file, "dev $")
    height, width, channels = imread(file).shape
    assert height > 200
    assert width > 300
    assert channels == 4
    assert [one.name for one in file.parent.iterdir()] == ["confusion.png"]
