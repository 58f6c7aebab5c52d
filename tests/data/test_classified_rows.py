"""Rows with a label: the files of ChnSentiCorp, SST-2 and RTE, and what may be wrong with one."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from foreword.data import read_data, read_examples
from foreword.errors import DataError

CHINESE = 'label,review\n1,"不错,房间很大"\n0,"他说""不好"""\n1,\n0,  \n'
SST2 = "sentence\tlabel\n\"half a quote \t0\nit 's good \t1\nit 's good \t0\n"


def write(folder: Path, text: str, name: str = "data") -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8", newline="")
    return file


def test_labels_are_not_fields(tmp_path: Path) -> None:
    first, second, third = read_examples(write(tmp_path, SST2), "tsv", label="label")
    assert first.fields == {"sentence": '"half a quote '}
    assert (first.label, second.label, third.label) == ("0", "1", "0")
    assert first.references == ("0",)
    assert not first.asks_text
    assert (first.words, first.tags, first.spans) == (None, None, None)


def test_rows_with_equal_inputs_stay_apart(tmp_path: Path) -> None:
    file = write(tmp_path, SST2)
    assert len(read_examples(file, "tsv", label="label")) == 3
    assert len(read_examples(file, "tsv", references="label")) == 2


def test_empty_rows_are_left_out_and_told(tmp_path: Path) -> None:
    file = write(tmp_path, CHINESE)
    reading = read_data(file, "csv", label="label")
    assert [e.fields["review"] for e in reading.examples] == ["不错,房间很大", '他说"不好"']
    assert reading.empty == (f"{file}, line 4", f"{file}, line 5")
    assert reading.notes == ()


def test_a_row_is_empty_where_the_named_fields_are(tmp_path: Path) -> None:
    file = write(tmp_path, "index\ta\tb\tlabel\n0\tx\t\t1\n1\t \t\t0\n", "x.tsv")
    assert read_data(file, "tsv", label="label").empty == ()
    reading = read_data(file, "tsv", label="label", inputs=["a", "b"])
    assert reading.empty == (f"{file}, line 3",)
    assert [e.fields["index"] for e in reading.examples] == ["0"]


def test_a_file_of_empty_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no examples in it but 2 empty rows"):
        read_examples(write(tmp_path, "label,review\n1,\n0,\n"), "csv", label="label")


def test_a_test_file_without_labels(tmp_path: Path) -> None:
    file = write(tmp_path, "index\tsentence\n0\ta\n1\ta\n")
    rows = read_examples(file, "tsv", label="label", need_references=False)
    assert [(e.label, e.references, e.fields["sentence"]) for e in rows] == [(None, (), "a")] * 2
    with pytest.raises(DataError, match="line 2: field 'label' is missing; expected the label"):
        read_examples(file, "tsv", label="label")


@pytest.mark.parametrize(
    ("value", "label"),
    [(1, "1"), (0, "0"), (True, "true"), (False, "false"), (" no ", "no"), ("007", "007")],
)
def test_labels_of_jsonl(value: Any, label: str, tmp_path: Path) -> None:
    file = write(tmp_path, json.dumps({"t": "x", "label": value}))
    assert read_examples(file, "jsonl", label="label")[0].label == label


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "field 'label' is empty; expected the label of this row"),
        ("", "field 'label': expected a label, found ''"),
        ("  ", "field 'label': expected a label, found ''"),
        (0.5, "field 'label': expected a label, a text or a whole number, found 0.5"),
        ([1], "found [1]"),
    ],
)
def test_wrong_labels(value: Any, said: str, tmp_path: Path) -> None:
    file = write(tmp_path, json.dumps({"t": "x", "label": value}))
    with pytest.raises(DataError) as caught:
        read_examples(file, "jsonl", label="label")
    assert str(caught.value).startswith(f"{file}, line 1")
    assert said in str(caught.value)


def test_a_wrong_name_is_guessed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'lable' is missing.*did you mean 'label'\?"):
        read_examples(write(tmp_path, SST2), "tsv", label="lable")


@pytest.mark.parametrize(
    ("path", "format", "inputs", "counts"),
    [
        ("chnsenticorp/ChnSentiCorp_htl_all.csv", "csv", ["review"], {"1": 4504, "0": 2062}),
        ("sst2/train.tsv", "tsv", ["sentence"], {"1": 37569, "0": 29780}),
        (
            "rte/train.tsv",
            "tsv",
            ["sentence1", "sentence2"],
            {"entailment": 1249, "not_entailment": 1241},
        ),
    ],
)
def test_the_real_files(
    path: str, format: str, inputs: list[str], counts: dict[str, int], shared: Any
) -> None:
    reading = read_data(shared(f"data/{path}"), format, label="label", inputs=inputs)
    assert Counter(example.label for example in reading.examples) == counts
    assert (reading.empty, reading.notes) == ((), ())
    assert all(set(inputs) <= set(example.fields) for example in reading.examples)
