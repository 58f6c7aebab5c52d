"""Files of inputs are read by their format, and lines as they arrive."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from foreword.data.inputs import Given, arriving_inputs, read_inputs
from foreword.errors import DataError, UserError

ROWS = [{"text": "a, b", "n": "1"}, {"text": "Zoë 火", "n": "2"}]
SQUAD = {
    "data": [
        {"title": "t", "paragraphs": [{"context": "c d", "qas": [{"id": "1", "question": "q?"}]}]}
    ]
}
XML = (
    '<b><entry category="City" eid="Id1"><modifiedtripleset><mtriple>A_b | c | d</mtriple>'
    "</modifiedtripleset></entry></b>"
)


def parquet(file: Path) -> None:
    from datasets import Dataset

    Dataset.from_list(ROWS).to_parquet(file)


def text(content: str) -> Callable[[Path], object]:
    return lambda file: file.write_text(content, encoding="utf-8")


JSONL = "".join(json.dumps(row) + "\n" for row in ROWS)
CSV = 'text,n\n"a, b",1\nZoë 火,2\n'
TSV = "text\tn\na, b\t1\nZoë 火\t2\n"


@pytest.mark.parametrize(
    ("name", "write", "format", "trained_on"),
    [
        ("x.jsonl", text(JSONL), None, "csv"),
        ("x.json", text(JSONL), None, None),
        ("x.csv", text(CSV), None, None),
        ("x.CSV", text(CSV), None, "squad"),
        ("x.tsv", text(TSV), None, "jsonl"),
        ("x.parquet", parquet, None, None),
        ("x.txt", text(JSONL), None, None),
        ("x", text(CSV), "csv", None),
        ("x.txt", text(TSV), "tsv", "conll"),
    ],
)
def test_tables(
    name: str, write: Any, format: str | None, trained_on: str | None, tmp_path: Path
) -> None:
    write(tmp_path / name)
    given = list(read_inputs(tmp_path / name, format, trained_on=trained_on))
    assert [one.value for one in given] == ROWS
    assert given[1].where.startswith(f"{tmp_path / name}, ")


@pytest.mark.parametrize(
    ("name", "write", "format", "trained_on", "value"),
    [
        (
            "x.csv",
            'mr\n"name[A], type[pub]"\n',
            None,
            "e2e",
            {"record": {"name": "A", "type": "pub"}},
        ),
        ("x.csv", "mr\nname[A]\n", None, "csv", {"mr": "name[A]"}),
        ("x.conll", "EU O\nasks O\n", None, "jsonl", {"words": ["EU", "asks"]}),
        ("x.bio", "EU\nasks\n", None, "conll", {"words": ["EU", "asks"]}),
        ("x.json", json.dumps(SQUAD), "squad", "squad", {"question": "q?", "context": "c d"}),
        ("x.xml", XML, None, "webnlg", {"triples": "A b : c : d", "category": "City"}),
        ("x.xml", XML, "dart", "csv", {"triples": "A_b : c : d"}),
        ("x.jsonl", '{"document": "d"}\n', None, "xsum", {"document": "d"}),
        ("x.txt", "text,n\n", None, "csv", "text,n"),
        ("x.csv", "a line\n", "text", "csv", "a line"),
        ("x.log", "{a line\n", "text", "csv", "{a line"),
    ],
)
def test_other_formats(
    name: str, write: str, format: str | None, trained_on: str, value: Any, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(write, encoding="utf-8")
    (given,) = read_inputs(tmp_path / name, format, trained_on=trained_on)
    if isinstance(value, dict):
        assert isinstance(given.value, dict)
        assert {key: given.value[key] for key in value} == value
    else:
        assert given.value == value


def test_bundled_data() -> None:
    first = next(read_inputs("foreword/fieldguide/test", encoding="utf-16"))
    assert isinstance(first.value, dict)
    assert "record" in first.value


@pytest.mark.parametrize(
    ("name", "content", "format", "said"),
    [
        ("x.csv", "a,a\n1,2\n", None, "x.csv, line 1: expected a header of distinct column names"),
        ("x.csv", "a,b\n1\n", None, "x.csv, line 2: expected 2 fields"),
        ("x.csv", "a,b\n", None, "x.csv: holds no input"),
        ("x.txt", "\n \n", None, "x.txt: holds no input"),
        ("x.jsonl", "[1]\n", None, "x.jsonl, line 1: expected an object"),
        ("x.xml", "<a/>", None, "x.xml: its format cannot be told from its name"),
        ("x.parquet", "x", None, "x.parquet: not a Parquet file"),
        ("x.csv", "a\n1\n", "xml", "format: 'xml' is not known"),
        ("none.csv", None, None, "none.csv: no such file"),
    ],
)
def test_mistakes(
    name: str, content: str | None, format: str | None, said: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(UserError) as raised:
        list(read_inputs(tmp_path / name, format, trained_on="csv"))
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("lines", "format", "values"),
    [
        (["a\r\n", "\n", " b\n"], None, ["a", " b"]),
        (["\n", '{"a": 1}\n', '{"a": 2}'], None, [{"a": 1}, {"a": 2}]),
        (['{"a": 1}\n'], "text", ['{"a": 1}']),
        (["a,b\n", '1,"2\n', '3"\n'], "csv", [{"a": "1", "b": "2\n3"}]),
        (["a\tb\n", '1\t"2\n'], "tsv", [{"a": "1", "b": '"2'}]),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "gb18030"])
def test_lines_of_a_stream(
    lines: list[str], format: str | None, values: list[Any], encoding: str
) -> None:
    raw = "".join(lines).encode(encoding).splitlines(keepends=True)
    given = arriving_inputs("here", raw, format, encoding=encoding)
    assert [one.value for one in given] == values


def test_each_line_is_an_input_before_the_next_one_is_read() -> None:
    read: list[int] = []

    def lines() -> Iterator[bytes]:
        for number in range(3):
            read.append(number)
            yield b'{"a": %d}\n' % number

    inputs = arriving_inputs("here", lines())
    for number in range(3):
        assert next(inputs) == Given(f"here, line {number + 1}", {"a": number})
        assert read == list(range(number + 1))


@pytest.mark.parametrize("format", ["parquet", "squad", "conll", "nothing"])
def test_formats_that_are_no_lines_are_refused_in_a_stream(format: str) -> None:
    with pytest.raises(DataError, match="is not read line by line; give text, jsonl, csv, tsv"):
        list(arriving_inputs("here", [b"x\n"], format))
