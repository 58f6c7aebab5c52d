"""CoNLL columns: sentences, chosen columns, schemes, and lines that are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from foreword.data import read_data, read_examples
from foreword.errors import DataError

IOB1 = """-DOCSTART- -X- -X- O

EU NNP I-NP I-ORG
rejects VBZ I-VP O
German JJ I-NP I-MISC
call NN I-NP O
. . O O

Peter NNP I-NP I-PER
Blackburn NNP I-NP I-PER

-DOCSTART- -X- -X- O

BRUSSELS NNP I-NP I-LOC
"""


def write(folder: Path, text: str) -> Path:
    file = folder / "data.conll"
    file.write_bytes(text.encode())
    return file


def refused(folder: Path, text: str, **options: int | bool) -> str:
    with pytest.raises(DataError) as caught:
        read_examples(write(folder, text), "conll", **options)
    return str(caught.value)


def test_sentences_of_conll_2003(tmp_path: Path) -> None:
    file = write(tmp_path, IOB1)
    reading = read_data(file, "conll")
    first, second, third = reading.examples
    assert first.words == ("EU", "rejects", "German", "call", ".")
    assert first.tags == ("B-ORG", "O", "B-MISC", "O", "O")
    assert first.fields == {"text": "EU rejects German call ."}
    assert second.tags == ("B-PER", "I-PER")
    assert third.where == f"{file}, line 14"
    assert reading.notes == ("its tags follow IOB1 and are read as IOB2",)
    assert not first.asks_text


def test_other_columns(tmp_path: Path) -> None:
    file = write(tmp_path, IOB1)
    reading = read_data(file, "conll", tags=2)
    assert reading.examples[0].tags == ("NNP", "VBZ", "JJ", "NN", ".")
    assert reading.notes == ()
    (only,) = read_examples(write(tmp_path, "1\tNew York\tS-LOC\n"), "conll", words=2)
    assert (only.words, only.tags) == (("New York",), ("B-LOC",))


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("between", [" ", "\t", "  "])
def test_what_stands_between_columns(between: str, end: str, tmp_path: Path) -> None:
    lines = ["a\u00a0b O", "\u3000 O", "", "", "c B-X", " "]
    text = end.join(line.replace(" ", between) for line in lines)
    examples = read_examples(write(tmp_path, text), "conll")
    assert [len(e.words or ()) for e in examples] == [2, 1]
    assert examples[0].words == ("a\u00a0b", "\u3000")


def test_words_alone(tmp_path: Path) -> None:
    file = write(tmp_path, "a\nb\n\nc\n")
    first, second = read_examples(file, "conll", need_references=False)
    assert (first.words, first.tags, second.words) == (("a", "b"), None, ("c",))
    assert "expected a column of words and another of tags, found 1 columns" in refused(
        tmp_path, "a\n"
    )


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("", {}, "no examples in it"),
        ("\n\n-DOCSTART- O\n", {}, "no examples in it"),
        ("a O\nb\n", {}, "line 2: expected 2 columns, as in the lines before, found 1: 'b'"),
        ("a\tO\nb c O\n", {}, "line 2: expected 2 columns, as in the lines before, found 1"),
        ("a O\n", {"tags": 3}, "line 1: has 2 columns; task.data.tags names number 3"),
        ("a O\n", {"words": 3}, "line 1: has 2 columns; task.data.words names number 3"),
        ("a O\n", {"words": 2}, "expected a column of words and another of tags"),
        ("a B-X\nb 7\n", {}, "line 2: expected a tag such as O, B-PER or I-PER"),
        ("a\t\n", {}, "line 1: a column is empty"),
    ],
)
def test_wrong_lines(text: str, options: dict[str, int], said: str, tmp_path: Path) -> None:
    message = refused(tmp_path, text, **options)
    assert message.startswith(str(tmp_path / "data.conll"))
    assert said in message
