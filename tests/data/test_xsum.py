"""XSUM: documents from files and from the hub, and the splits by section of Li & Liang."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from foreword.data import read_data, read_examples
from foreword.data.xsum import sections_of
from foreword.errors import DataError

ROWS = [
    {"id": "1", "document": "A goal.", "summary": "Goal", "url": "http://www.bbc.co.uk/sport/1"},
    {"id": "2", "document": "A vote.", "summary": "Vote", "url": "http://bbc.com/news/uk-2"},
    {"id": "3", "document": " ", "summary": "Empty", "url": "http://bbc.com/news/world-asia-3"},
    {"id": "4", "document": "A flu.", "summary": "Flu", "url": "http://bbc.com/news/health-4"},
]


def write(folder: Path, rows: list[dict[str, Any]], name: str = "xsum.jsonl") -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(rows), file)
    else:
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


@pytest.mark.parametrize("name", ["xsum.jsonl", "xsum.parquet"])
def test_documents_and_summaries(name: str, tmp_path: Path) -> None:
    file = write(tmp_path, ROWS, name)
    reading = read_data(file, "xsum")
    assert [e.fields["document"] for e in reading.examples] == ["A goal.", "A vote.", "A flu."]
    assert [e.references for e in reading.examples] == [("Goal",), ("Vote",), ("Flu",)]
    assert "summary" not in reading.examples[0].fields
    assert len(reading.empty) == 1
    assert reading.empty[0].endswith(" 3")
    assert reading.notes == ()


def test_an_empty_summary_is_left_out_where_it_is_needed(tmp_path: Path) -> None:
    file = write(tmp_path, [*ROWS, {"id": "5", "document": "x", "summary": None}])
    assert len(read_data(file, "xsum").empty) == 2
    reading = read_data(file, "xsum", need_references=False)
    assert (len(reading.empty), reading.examples[-1].references) == (1, ())


def test_a_missing_column_is_a_mistake(tmp_path: Path) -> None:
    file = write(tmp_path, [{"document": "x", "sumary": "y"}])
    with pytest.raises(DataError, match=r"line 1: field 'summary' is missing.*mean 'sumary'"):
        read_examples(file, "xsum")


@pytest.mark.parametrize(
    ("sections", "ids", "kept"),
    [
        (("sport",), ["1"], "1 of 4"),
        (("News",), ["2", "4"], "3 of 4"),
        (("uk", "business"), ["2"], "1 of 4"),
        (("world",), [], "1 of 4"),
    ],
)
def test_sections(sections: tuple[str, ...], ids: list[str], kept: str, tmp_path: Path) -> None:
    file = write(tmp_path, [*ROWS])
    if not ids:
        with pytest.raises(DataError, match="no examples in it but 1 empty rows"):
            read_examples(file, "xsum", sections=sections)
        return
    reading = read_data(file, "xsum", sections=sections)
    assert [e.fields["id"] for e in reading.examples] == ids
    assert reading.notes == (f"{kept} documents are the ones asked for",)


def test_a_section_of_its_own_column_comes_first(tmp_path: Path) -> None:
    rows = [
        {**ROWS[0], "section": "Wales"},
        {**ROWS[1], "section": ["world", "Sport"]},
        {"document": "x", "summary": "y", "section": "sport"},
    ]
    found = read_examples(write(tmp_path, rows), "xsum", sections=("sport",))
    assert [e.references for e in found] == [("Vote",), ("y",)]


def test_sections_that_there_are_not(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="in the sections arts; there are health, news, sport, uk"):
        read_examples(write(tmp_path, ROWS), "xsum", sections=("arts",))
    rows = [{"document": "x", "summary": "y", "id": "1"}]
    with pytest.raises(DataError, match=r"line 1: expected a text in the field 'section' or 'url'"):
        read_examples(write(tmp_path, rows), "xsum", sections=("arts",))


def test_a_file_of_ids(tmp_path: Path) -> None:
    ids = tmp_path / "ids.txt"
    ids.write_text("4\n\n 1 \n999\n")
    reading = read_data(write(tmp_path, ROWS), "xsum", ids=ids)
    assert [e.fields["id"] for e in reading.examples] == ["1", "4"]
    ids.write_text("\n")
    with pytest.raises(DataError, match=r"ids\.txt: holds no ids"):
        read_examples(write(tmp_path, ROWS), "xsum", ids=ids)
    ids.write_text("4\n")
    with pytest.raises(DataError, match="line 1, field 'id': expected a text or a number"):
        read_examples(write(tmp_path, [{"document": "x", "summary": "y"}]), "xsum", ids=ids)
    with pytest.raises(DataError, match="no such file"):
        read_examples(write(tmp_path, ROWS), "xsum", ids=tmp_path / "none")


@pytest.mark.parametrize(
    ("url", "sections"),
    [
        ("http://www.bbc.co.uk/news/world-europe-38937141", {"news", "world-europe", "world"}),
        ("https://www.bbc.com/news/UK-england-1?x=/sport", {"news", "uk-england", "uk"}),
        (
            "http://web.archive.org/web/2016/http://www.bbc.co.uk/sport/football/36054",
            {"sport", "football"},
        ),
        ("http://www.bbc.co.uk/sport/0/golf/123", {"sport", "golf"}),
        ("http://www.bbc.co.uk/news/37001", {"news"}),
        ("http://example.org/news/uk-1", set()),
        ("", set()),
    ],
)
def test_sections_of_urls(url: str, sections: set[str]) -> None:
    assert sections_of(url) == sections


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected a name that ends in \.jsonl or \.parquet"):
        read_examples(tmp_path / "xsum.tar.gz", "xsum")
