"""WebNLG and DART: folders, files, several texts of one set, and files that are wrong."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from foreword.data import read_data, read_examples
from foreword.data.webnlg import SEEN
from foreword.errors import DataError

XML = """<?xml version='1.0' encoding='utf-8'?>
<benchmark><entries>
<entry category="{category}" eid="Id1" size="2">
  <originaltripleset><otriple>x | y | z</otriple></originaltripleset>
  <modifiedtripleset>
    <mtriple>Łódź_Airport | runway_Length | "3500.0"</mtriple>
    <mtriple>Łódź_Airport | location | "Łódź, Poland"</mtriple>
  </modifiedtripleset>
  <lex comment="good" lid="Id1">Its runway &amp; place.</lex>
  <lex comment="toFix" lid="Id2">badly</lex>
  <lex comment="good" lid="Id3">Another.</lex>
</entry>
<entry category="{category}" eid="Id2" size="1">
  <modifiedtripleset><mtriple>A | b | C</mtriple></modifiedtripleset>
  <lex comment="toFix" lid="Id1">only this</lex>
</entry>
</entries></benchmark>
"""
DART = [
    {
        "tripleset": [
            ["Mars Hill College", "JOINED", "1973"],
            ["[TABLECONTEXT]", "[TITLE]", "x_y"],
        ],
        "subtree_was_extended": True,
        "annotations": [
            {"source": "WikiSQL_lily", "text": "A school joined."},
            {"source": "e2e", "text": "It joined."},
        ],
    },
    {"tripleset": [["a", "B", "c"]], "annotations": [{"source": "webnlg", "text": "t"}]},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for size, category in (("1triples", "Airport"), ("2triples", "Artist")):
        (tmp_path / size).mkdir()
        text = XML.replace("{category}", category)
        (tmp_path / size / f"{size}_{category}.xml").write_text(text, encoding="utf-8")
    (tmp_path / "README").write_text("no data")
    return tmp_path


def test_a_folder_of_webnlg(folder: Path) -> None:
    reading = read_data(folder, "webnlg", group="seen")
    first, second = reading.examples
    assert first.fields == {
        "triples": "Łódź Airport : runway Length : 3500.0 | Łódź Airport : location : Łódź, Poland",
        "triples_as_written": 'Łódź_Airport : runway_Length : "3500.0" | '
        'Łódź_Airport : location : "Łódź, Poland"',
        "category": "Airport",
        "size": "2",
        "seen": "yes",
    }
    assert first.references == ("Its runway & place.", "Another.")
    assert (first.group, second.group) == ("seen", "not seen")
    assert first.where == f"{folder}/1triples/1triples_Airport.xml, entry Id1"
    assert reading.notes == (
        "4 texts marked as to be mended were left out, and 2 entries that have no other",
    )


def test_one_file_and_texts_that_are_not_there(folder: Path) -> None:
    file = folder / "1triples" / "1triples_Airport.xml"
    assert len(read_examples(file, "webnlg")) == 1
    text = "\n".join(line for line in file.read_text("utf-8").split("\n") if "lex" not in line)
    file.write_text(text, encoding="utf-8")
    assert [e.references for e in read_examples(file, "webnlg", need_references=False)] == [(), ()]
    with pytest.raises(DataError, match="entry Id1: field 'references' is missing"):
        read_examples(file, "webnlg")


def test_dart(tmp_path: Path) -> None:
    file = tmp_path / "dart.json"
    file.write_text(json.dumps(DART), encoding="utf-8")
    first, second = read_examples(file, "dart", group="source")
    assert first.fields["triples"] == (
        "Mars Hill College : joined : 1973 | [TABLECONTEXT] : [title] : x_y"
    )
    assert first.references == ("A school joined.", "It joined.")
    assert (first.group, second.group) == ("WikiSQL_lily", "webnlg")
    assert second.where == f"{file}, set 2"


def test_dart_as_xml_is_the_same(tmp_path: Path) -> None:
    xml = ["<benchmark><entries>"]
    for i, item in enumerate(DART, 1):
        triples = "".join(f"<mtriple>{' | '.join(t)}</mtriple>" for t in item["tripleset"])
        texts = "".join(
            f'<lex comment="{a["source"]}" lid="Id1">{a["text"]}</lex>' for a in item["annotations"]
        )
        xml.append(
            f'<entry category="MISC" eid="Id{i}" size="1"><modifiedtripleset>{triples}'
            f"</modifiedtripleset>{texts}</entry>"
        )
    (tmp_path / "dart.xml").write_text("".join([*xml, "</entries></benchmark>"]), "utf-8")
    (tmp_path / "dart.json").write_text(json.dumps(DART), "utf-8")
    read = [read_examples(tmp_path / f"dart.{end}", "dart") for end in ("json", "xml")]
    assert [(e.fields, e.references) for e in read[0]] == [
        (e.fields, e.references) for e in read[1]
    ]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("A | b | C", "A | b", "entry Id2, mtriple: expected 'subject | property | object'"),
        ("A | b | C", "A |  | C", "entry Id2, mtriple"),
        ("A | b | C", "A | b | C | d", "found 'A | b | C | d'"),
        ("<mtriple>A | b | C</mtriple>", "", "entry Id2: expected triples"),
        (">Another.<", "> <", "entry Id1, lex Id3: expected a text that is not empty"),
        ("</entries>", "", "not valid XML (mismatched tag)"),
        ("<benchmark>", "<benchmark>&nothing;", "line 2, column 11: not valid XML"),
        ("encoding='utf-8'", "encoding='klingon'", "line 1"),
        ("<?xml", "x<?xml", "line 1, column 1: not valid XML"),
    ],
)
def test_wrong_xml(old: str, new: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "data.xml"
    assert old in XML
    file.write_text(XML.replace(old, new), encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_examples(file, "webnlg")
    assert str(caught.value).startswith(str(file))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({}, "expected a list of sets of triples, found {}"),
        ([], "no examples"),
        ([3], "set 1: expected an object with a tripleset"),
        ([{"tripleset": []}], "set 1: expected an object with a tripleset"),
        ([{"tripleset": [["a", "b"]]}], "set 1, tripleset: expected [subject, relation, object]"),
        ([{"tripleset": [["a", "b", 3]]}], "found ['a', 'b', 3]"),
        ([{"tripleset": [["a", "b", "c"]], "annotations": {}}], "set 1, annotations: expected a"),
        ([{"tripleset": [["a", "b", "c"]], "annotations": [{"text": ""}]}], "set 1, annotation 1"),
        ([{"tripleset": [["a", "b", "c"]]}], "set 1: field 'references' is missing"),
    ],
)
def test_wrong_dart(content: Any, said: str, tmp_path: Path) -> None:
    file = tmp_path / "dart.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_examples(file, "dart")
    assert str(caught.value).startswith(str(file))
    assert said in str(caught.value)


def test_a_folder_without_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no files \*\.xml in this folder"):
        read_examples(tmp_path, "webnlg")


@pytest.mark.parametrize(
    ("split", "entries", "texts", "mended"),
    [
        ("train", 6935, 18025, "77 texts marked as to be mended were left out, and 5 entries"),
        ("dev", 871, 2258, "10 texts marked as to be mended were left out, and 1 entries"),
    ],
)
def test_the_real_webnlg(split: str, entries: int, texts: int, mended: str, shared: Any) -> None:
    """Of 6,940 and 872 entries with 18,102 and 2,268 texts."""
    reading = read_data(shared(f"data/webnlg2017/{split}"), "webnlg", group="category")
    assert len(reading.examples) == entries
    assert sum(len(e.references) for e in reading.examples) == texts
    assert {e.group for e in reading.examples} == SEEN
    assert reading.notes[0].startswith(mended)
    assert not any("_" in str(e.fields["triples"]) for e in reading.examples)


def test_the_real_dart(shared: Any) -> None:
    file = shared("data/dart/dart-v1.1.1-full-dev.json")
    examples = read_examples(file, "dart", group="source", merge=False)
    assert len(examples) == 2768
    assert sum(len(e.references) for e in examples) == 6980
    assert Counter(e.group for e in examples).keys() == {
        "e2e",
        "webnlg",
        "WikiSQL_decl_sents",
        "WikiSQL_lily",
        "WikiTableQuestions_lily",
        "WikiTableQuestions_mturk",
    }
    assert sum(len(e.references) for e in read_examples(file, "dart")) == 6980
