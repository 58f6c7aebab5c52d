"""The census: what is counted, and how it is told."""

from __future__ import annotations

from typing import Any

from foreword.data import Example, Span, read_data, take_census


def classified(*rows: tuple[str, str]) -> list[Example]:
    return [
        Example({"id": f"{i}", "t": text}, label=label, where=f"here, line {i}")
        for i, (text, label) in enumerate(rows, start=2)
    ]


def test_labels() -> None:
    rows = classified(("one", "1"), ("two", "0"), ("one", "1"), ("threefold", "1"), ("two", "1"))
    census = take_census(rows, inputs=["t"], empty=["here, line 9"], notes=["said by the reader"])
    assert census.labels == {"1": 4, "0": 1}
    assert (census.examples, census.inputs, census.duplicates) == (5, 3, 2)
    assert (census.conflicting, census.first_conflict) == (1, "here, line 6")
    assert (census.lengths, census.unit, census.over) == ((3, 3, 9), "characters", None)
    assert census.lines("train") == [
        "train: 5 examples; inputs of 3 to 9 characters, median 3",
        "  1 4 (80.0 %), 0 1 (20.0 %)",
        "  1 empty row left out, the first here, line 9",
        "  2 examples with an input that stood before",
        "  1 input with different answers, such as here, line 6",
        "  said by the reader",
    ]
    assert take_census(rows).duplicates == 0


def test_texts_to_write() -> None:
    rows = [Example({"t": "a b"}, ("x", "y")), Example({"t": "c"}, ("z",))]
    assert take_census(rows).lines("dev") == [
        "dev: 2 examples with 3 references; inputs of 1 to 3 characters, median 2"
    ]
    census = take_census([*rows, rows[0]])
    assert (census.inputs, census.conflicting) == (2, 0)
    assert census.lines("train") == [
        "train: 3 examples of 2 different inputs with 5 references; inputs of 1 to 3 characters, "
        "median 3"
    ]


def test_empty_inputs() -> None:
    rows = [Example({"a": " ", "b": "", "id": f"{i}"}, ("x",)) for i in range(2)]
    census = take_census([*rows, Example({"a": "c", "b": ""}, ("x",))], inputs=["a", "b"])
    assert census.blank == 2
    assert census.lines("x")[1] == "  2 examples with an empty input"
    assert take_census(rows).blank == 0


def test_tags() -> None:
    tags = ("B-PER", "I-PER", "O", "B-LOC")
    rows = [
        Example({"text": "a b c d"}, words=("a", "b", "c", "d"), tags=tags),
        Example({"text": "a"}, words=("a",), tags=("B-PER",)),
        Example({"text": "a"}, words=("a",), tags=("O",), where="line 9"),
    ]
    assert take_census(rows).lines("train") == [
        "train: 3 examples of 6 words; inputs of 1 to 4 words, median 1",
        "  PER 2 (66.7 %), LOC 1 (33.3 %)",
        "  1 example with an input that stood before",
        "  1 input with different answers, such as line 9",
    ]
    plain = [Example({"text": "a b"}, words=("a", "b"), tags=("NN", "NN"))]
    assert take_census(plain).labels == {"NN": 2}


def test_questions() -> None:
    fields = {"question": "q", "context": "abc"}
    rows = [
        Example({**fields, "id": "1"}, ("a",), spans=(Span("a", 0),)),
        Example({**fields, "id": "2"}, spans=()),
    ]
    census = take_census(rows)
    assert census.labels == {"answerable": 1, "without an answer": 1}
    assert (census.duplicates, census.conflicting, census.references) == (1, 1, 0)


def test_lengths_in_tokens() -> None:
    rows = classified(*((f"{'x ' * i}", "1") for i in range(1, 6)))
    census = take_census(rows, length=lambda e: str(e.fields["t"]).count("x"), room=3)
    assert (census.lengths, census.unit, census.over) == ((1, 3, 5), "tokens", 2)
    assert census.lines("x")[-1] == "  2 inputs too long to fit"


def test_many_labels_are_cut_short() -> None:
    rows = classified(*((f"{i}", f"label {i}") for i in range(20)))
    assert take_census(rows).lines("x")[1].endswith("label 7 1 (5.0 %), and 12 more")


def test_the_real_sst2(shared: Any) -> None:
    reading = read_data(shared("data/sst2/train.tsv"), "tsv", label="label")
    census = take_census(reading.examples)
    assert census.labels == {"1": 37569, "0": 29780}
    assert (census.duplicates, census.conflicting, census.lengths) == (371, 5, (2, 39, 268))


def test_progress() -> None:
    for count in (1, 4096, 4097, 8192, 9000):
        told: list[int] = []
        take_census([Example({"t": "x"}, label="a")] * count, advance=told.append)
        assert sum(told) == count
        assert len(told) == -(-count // 4096)
