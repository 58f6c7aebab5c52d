"""Columns that hold several labels or a number, and what may be wrong with a row's."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from foreword.data import Example, read_data, read_examples, take_census
from foreword.errors import DataError, RecipeError
from foreword.recipe import parse_recipe


def jsonl(folder: Path, *rows: dict[str, Any]) -> Path:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def csv(folder: Path, text: str) -> Path:
    file = folder / "rows.csv"
    file.write_text(text, encoding="utf-8")
    return file


def labels(examples: list[Example]) -> list[tuple[str, ...] | None]:
    return [example.labels for example in examples]


def test_a_list_of_labels(tmp_path: Path) -> None:
    file = jsonl(
        tmp_path,
        {"text": "x", "topics": ["sport", "news"]},
        {"text": "x", "topics": []},
        {"text": "y", "topics": [1, True, " a "]},
    )
    found = read_examples(file, "jsonl", label_list="topics")
    assert labels(found) == [("sport", "news"), (), ("1", "true", "a")]
    assert [example.fields for example in found] == [{"text": "x"}, {"text": "x"}, {"text": "y"}]
    assert not any(example.asks_text or example.references for example in found)


def test_a_text_with_a_separator(tmp_path: Path) -> None:
    file = csv(tmp_path, 'text,topics\nx,"sport, news"\ny,\nz,sport\n')
    found = read_examples(file, "csv", label_list="topics", separator=",")
    assert labels(found) == [("sport", "news"), (), ("sport",)]
    file = csv(tmp_path, "text,topics\nx,a||b\n")
    assert labels(read_examples(file, "csv", label_list="topics", separator="||")) == [("a", "b")]


def test_a_list_of_a_parquet_file(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.table({"text": ["x", "y"], "topics": [["a", "b"], []]})
    parquet.write_table(table, tmp_path / "rows.parquet")
    found = read_examples(tmp_path / "rows.parquet", "parquet", label_list="topics")
    assert labels(found) == [("a", "b"), ()]


@pytest.mark.parametrize(
    ("value", "separator", "said"),
    [
        ("a,b", None, "expected a list of labels; of a text say in task.data.separator"),
        (3, ",", "expected a list of labels, or a text with ',' between them, found 3"),
        ({"a": 1}, None, "expected a list of labels"),
        (["a", 0.5], None, "expected labels, each a text or a whole number, found 0.5 among them"),
        (["a", ""], None, "found '' among them"),
        ("a,,b", ",", "found '' among them"),
        ([["a"]], None, "found ['a'] among them"),
        (["a", "b", "a"], None, "the label 'a' stands twice"),
        (None, None, "field 'topics' is empty; expected the labels of this row, perhaps none"),
    ],
)
def test_what_is_no_list_of_labels(
    value: Any, separator: str | None, said: str, tmp_path: Path
) -> None:
    file = jsonl(tmp_path, {"text": "x", "topics": ["a"]}, {"text": "y", "topics": value})
    with pytest.raises(DataError) as caught:
        read_examples(file, "jsonl", label_list="topics", separator=separator)
    assert str(caught.value).startswith(f"{file}, line 2")
    assert said in str(caught.value)


def test_rows_without_labels_where_none_are_needed(tmp_path: Path) -> None:
    file = jsonl(tmp_path, {"text": "x"}, {"text": "y", "topics": ["a"]})
    found = read_examples(file, "jsonl", label_list="topics", need_references=False)
    assert labels(found) == [None, ("a",)]
    with pytest.raises(DataError, match="line 1: field 'topics' is missing"):
        read_examples(file, "jsonl", label_list="topics")


EXPECTED = "expected a number, such as 3 or 0.25, found "


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (math.nan, f", field 'score': {EXPECTED}nan"),
        (math.inf, f", field 'score': {EXPECTED}inf"),
        ("nan", f", field 'score': {EXPECTED}'nan'"),
        ("-inf", f", field 'score': {EXPECTED}'-inf'"),
        ("1,5", f", field 'score': {EXPECTED}'1,5'"),
        ("1_000", f", field 'score': {EXPECTED}'1_000'"),
        (10**400, f", field 'score': {EXPECTED}"),
        (True, f", field 'score': {EXPECTED}True"),
        ([1], f", field 'score': {EXPECTED}[1]"),
        ({"a": 1}, f", field 'score': {EXPECTED}"),
        ("", f", field 'score': {EXPECTED}''"),
        ("many", f", field 'score': {EXPECTED}'many'"),
        (None, ": field 'score' is empty; expected the number of this row"),
    ],
)
def test_what_is_no_number(value: Any, said: str, tmp_path: Path) -> None:
    file = jsonl(tmp_path, {"text": "x", "score": 1}, {"text": "y", "score": value})
    with pytest.raises(DataError) as caught:
        read_examples(file, "jsonl", number="score")
    assert str(caught.value).startswith(f"{file}, line 2{said}")


def test_no_number_in_a_table(tmp_path: Path) -> None:
    """The text of a cell is read as a number, by the same rule."""
    for cell in ("nan", "1_000", "many"):
        file = csv(tmp_path, f"text,score\nx,1e-3\ny,{cell}\n")
        with pytest.raises(DataError) as caught:
            read_examples(file, "csv", number="score")
        assert str(caught.value).startswith(f"{file}, line 3, field 'score': {EXPECTED}'{cell}'")


def test_numbers(tmp_path: Path) -> None:
    written = [3, -0.25, "1e-3", " 2 ", "+4"]
    file = jsonl(tmp_path, *({"text": "x", "score": value} for value in written))
    found = [example.number for example in read_examples(file, "jsonl", number="score")]
    assert found == [3.0, -0.25, 0.001, 2.0, 4.0]


def test_what_is_counted(tmp_path: Path) -> None:
    file = jsonl(
        tmp_path,
        {"text": "x", "topics": ["a", "b"]},
        {"text": "x", "topics": ["b", "a"]},
        {"text": "y", "topics": []},
        {"text": "y", "topics": ["b"]},
        {"text": " ", "topics": ["b"]},
    )
    reading = read_data(file, "jsonl", label_list="topics", inputs=["text"])
    lines = take_census(reading.examples, inputs=["text"], empty=reading.empty).lines("train")
    assert lines[1] == "  b 3 (75.0 %), a 2 (50.0 %), none of them 1"
    assert f"  1 empty row left out, the first {file}, line 5" in lines
    assert any("1 input with different answers" in line for line in lines), "y alone"


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (
            {"data": {"label_list": "a", "label": "b"}},
            "task.data: give one of `label`, `label_list`",
        ),
        ({"data": {"separator": ","}}, "`separator` is for several labels a row"),
        ({"data": {"format": "squad", "label_list": "a"}}, "`label_list` is for the formats jsonl"),
        ({"data": {"label": "a"}, "threshold": 0.3}, "`threshold` is for several labels a row"),
        ({"data": {"label_list": "a"}, "threshold": 1}, "`threshold` is 1; give a number between"),
        ({"data": {"label_list": "a"}, "threshold": "each"}, "task.threshold"),
        (
            {"data": {"label_list": "a"}, "verbalizer": {"words": {"a": "x", "b": "y"}}},
            "`verbalizer` is for tasks with one label a row: give `data.label`",
        ),
        ({"data": {"label_list": "a"}, "metrics": ["accuracy"]}, "choose among macro_f1, micro_f1"),
        ({"data": {"label_list": "a"}, "limits": {"per_label": 2}}, "`limits.per_label`"),
    ],
)
def test_recipes_that_ask_for_what_there_is_not(task: dict[str, Any], said: str) -> None:
    data = {"format": "jsonl", "train": "a.jsonl", "dev": "b.jsonl", **task["data"]}
    given = {
        "version": 1,
        "name": "one",
        "backbone": "foreword/mini",
        "method": "p-tuning-v2",
        "task": {"input": "{text}", **task, "data": data},
    }
    with pytest.raises(RecipeError) as caught:
        parse_recipe(given)
    assert said in str(caught.value)
