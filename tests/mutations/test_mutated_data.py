"""Hundreds of damaged data files end in a clear DataError or in examples, never in a traceback."""

from __future__ import annotations

import io
import json
import math
import random
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from mutators import JUNK, damaged_bytes, damaged_tree, seeds
from pyarrow import parquet

from foreword.data import linearise, read_examples
from foreword.data.example import Unusable
from foreword.errors import DataError, UserError

ROWS = [
    {
        "id": f"row-{i}",
        "seen": i % 2 == 0,
        "weight": i / 2,
        "record": {"name": f"Silver {i}", "type": "bird", "colour": "grey"},
        "references": [f"Silver {i} is a grey bird.", f'The "grey" bird, Silver {i}.'],
    }
    for i in range(6)
]
CSV = "".join(
    ["input,references,seen\n"]
    + [f'name {i},"It is called ""{i}"",\nthe {i}.",{i % 2}\n' for i in range(6)]
)
TSV = "input\treferences\tseen\n" + "".join(f'a "{i}\tb {i}\t{i % 2}\n' for i in range(6))
E2E = "mr,ref\n" + "".join(
    f'"name[The Vaults {i}], eatType[pub], area[riverside]","It is, a pub {i}."\n' for i in range(6)
)
JSONL = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
CONLL = "-DOCSTART- O\n\n" + "".join(
    f"Ana{i} NNP I-PER\nsaw VBD O\nBo NNP I-PER\n, , O\nŁódź NNP B-LOC\n\n" for i in range(4)
)
SQUAD = {
    "version": "v2.0",
    "data": [
        {
            "title": f"Trip {i}",
            "paragraphs": [
                {
                    "context": "Zoë 🙂 saw Ana in Łódź.",
                    "qas": [
                        {
                            "id": f"q{i}",
                            "question": "Who?",
                            "is_impossible": False,
                            "answers": [{"text": "Ana", "answer_start": 10}],
                        },
                        {"id": f"n{i}", "question": "When?", "is_impossible": True, "answers": []},
                    ],
                }
            ],
        }
        for i in range(2)
    ],
}
DART = [
    {
        "tripleset": [["Łódź", "PART_OF", "Poland"], ["[TABLECONTEXT]", "[TITLE]", f"{i}"]],
        "annotations": [{"source": "e2e", "text": f"Text {i}."}],
    }
    for i in range(4)
]
WEBNLG = (
    "<?xml version='1.0' encoding='utf-8'?>\n<benchmark><entries>\n"
    + "".join(
        f"""<entry category="City" eid="Id{i}" size="1">
<modifiedtripleset><mtriple>Łódź_{i} | part | "Poland"</mtriple></modifiedtripleset>
<lex comment="good" lid="Id1">Łódź &amp; Poland {i}.</lex>
<lex comment="toFix" lid="Id2">x</lex></entry>
"""
        for i in range(4)
    )
    + "</entries></benchmark>\n"
)
XSUM = "".join(
    json.dumps({"id": f"{i}", "document": f"A goal {i}.", "summary": f"Goal {i}"}) + "\n"
    for i in range(5)
)
MULTIRC = [
    {
        "passage": {
            "text": f"Zoë saw Ana in Łódź {i}.",
            "questions": [
                {
                    "question": "Who?",
                    "answers": [{"text": "Ana", "label": 1}, {"text": "Bo", "label": 0}],
                }
            ],
        }
    }
    for i in range(4)
]
RECORD = [
    {
        "passage": {
            "text": "Zoë saw Ana in Łódź.",
            "entities": [{"start": 0, "end": 2}, {"start": 8, "end": 10}],
        },
        "qas": [{"query": f"@placeholder saw {i}", "answers": [{"text": "Zoë"}]}],
    }
    for i in range(4)
]
OWN = [
    {
        "text": f"a bird {i}",
        "tells": ["x", "y"][: i % 3],
        "size": i / 2,
        "ends": ["a", "b"],
        "label": 1,
    }
    for i in range(5)
]
COLUMNS: dict[str, dict[str, Any]] = {
    "labels": {"label_list": "tells"},
    "numbers": {"number": "size"},
    "choices": {"choices": "ends"},
}
"""How the rows of `OWN` are read."""


def as_lines(rows: list[Any]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


TEXTS = {
    "jsonl": JSONL,
    "csv": CSV,
    "tsv": TSV,
    "e2e": E2E,
    "conll": CONLL,
    "squad": json.dumps(SQUAD, ensure_ascii=False, indent=1),
    "dart": json.dumps(DART, ensure_ascii=False, indent=1),
    "webnlg": WEBNLG,
    "xsum": XSUM,
    "multirc": as_lines(MULTIRC),
    "record": as_lines(RECORD),
}
GROUPS = {"jsonl": "seen", "csv": "seen", "tsv": "seen", "parquet": "seen", "webnlg": "category"}
NAMES = {"xsum": "data.jsonl"}


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    sink = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


def storable(value: Any) -> bool:
    """Whether Parquet has such a value."""
    try:
        as_parquet([{"column": value}])
    except (pa.ArrowException, OverflowError):
        return False
    return True


def verdict(file: Path, format: str, **options: Any) -> bool:
    """Whether the file was refused; fails unless that was done clearly."""
    try:
        examples = read_examples(file, format, group=GROUPS.get(format), **options)
    except DataError as error:
        said = str(error)
        assert said.startswith(str(file))
        assert len(said) < 1000
        assert re.search(
            r", line \d+|, row \d+|, entry |, set \d+|, data\[|: expected 'data', a list"
            r"|: expected a list of sets|surrogate|no examples in it|not valid JSON"
            r"|not a Parquet file that can be read",
            said,
        ), said
        return True
    assert examples
    for example in examples:
        asked = (example.labels, example.number, example.choices, example.words, example.spans)
        assert example.references or example.label or any(part is not None for part in asked)
        assert all(label.strip() for label in example.labels or ())
        assert all(choice.strip() for choice in example.choices or ())
        assert all(0 <= number < len(example.choices or ()) for number in example.right or ())
        assert example.number is None or abs(example.number) < math.inf
        assert all(reference.strip() for reference in example.references)
        fields = [f for f in example.fields.values() if not isinstance(f, Unusable)]
        text = "".join(linearise(field) for field in fields)
        "".join([text, *example.references, example.group or "", *(example.words or ())]).encode()
        assert example.words is None or len(example.words) == len(example.tags or ())
        for span in example.spans or ():
            assert str(example.fields["context"])[span.start :].startswith(span.text)
    return False


@pytest.mark.parametrize("format", TEXTS)
@pytest.mark.parametrize("seed", seeds(30))
def test_bytes_of_text(format: str, seed: int, tmp_path: Path) -> None:
    file = tmp_path / NAMES.get(format, "data.txt")
    file.write_bytes(damaged_bytes(seed, TEXTS[format].encode()))
    verdict(file, format)


@pytest.mark.parametrize("seed", seeds(30))
def test_bytes_of_labelled_rows(seed: int, tmp_path: Path) -> None:
    file = tmp_path / "data.csv"
    file.write_bytes(damaged_bytes(seed, CSV.encode()))
    verdict(file, "csv", label="references")


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("seed", seeds(20))
def test_values_of_rows_with_answers(column: str, seed: int, tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    file.write_text(as_lines(damaged_tree(seed, OWN)), encoding="utf-8")
    verdict(file, "jsonl", **COLUMNS[column])


@pytest.mark.parametrize("format", ["multirc", "record"])
@pytest.mark.parametrize("seed", seeds(30))
def test_values_of_nested_lines(format: str, seed: int, tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    tree = damaged_tree(seed, {"multirc": MULTIRC, "record": RECORD}[format])
    file.write_text(as_lines(tree if isinstance(tree, list) else [tree]), encoding="utf-8")
    verdict(file, format)


@pytest.mark.parametrize("format", ["squad", "dart"])
@pytest.mark.parametrize("seed", seeds(40))
def test_values_of_json(format: str, seed: int, tmp_path: Path) -> None:
    file = tmp_path / "data.json"
    tree = damaged_tree(seed, {"squad": SQUAD, "dart": DART}[format])
    file.write_text(json.dumps(tree), encoding="utf-8")
    verdict(file, format)


@pytest.mark.parametrize("seed", seeds(20))
def test_values_of_jsonl(seed: int, tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    rows = damaged_tree(seed, ROWS)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    verdict(file, "jsonl")


@pytest.mark.parametrize("seed", seeds(20))
def test_bytes_of_parquet(seed: int, tmp_path: Path) -> None:
    file = tmp_path / "data.parquet"
    file.write_bytes(damaged_bytes(seed, as_parquet(ROWS)))
    verdict(file, "parquet")


@pytest.mark.parametrize("seed", seeds(20))
def test_values_of_parquet(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    column = rng.choice(list(ROWS[0]))
    value = rng.choice(
        [v for v in (*JUNK, b"\xff\x00", [b"x"], {"a": [1]}, [{"a": 1}]) if storable(v)]
    )
    rows = [{**row, column: value} for row in ROWS]
    file = tmp_path / "data.parquet"
    file.write_bytes(as_parquet(rows))
    verdict(file, "parquet")


REFUSED = {
    "empty": ("jsonl", b"", "no examples"),
    "blank lines": ("jsonl", b"\n \n\n", "no examples"),
    "empty table": ("csv", b"", "no examples"),
    "header alone": ("csv", b"input,references,seen\n", "no examples"),
    "unknown columns": ("csv", b"in,out,seen\na,b,c\n", "line 2: field 'references' is missing"),
    "no e2e header": ("e2e", b"name[x],text\n", "line 1: expected the columns mr, ref"),
    "a column twice": ("csv", b"seen,seen\n", "line 1: expected a header of distinct"),
    "a column too many": ("csv", b"references,seen\na,b,c\n", "line 2: expected 2 fields"),
    "unbalanced quote": ("csv", b'references,seen\n"a,b\n', "line 2: not valid CSV"),
    "text after a quote": ("csv", b'references,seen\n"a"x,b\n', "line 2: not valid CSV"),
    "carriage returns": ("csv", b"references,seen\ra,b\r", "line 1: not valid CSV"),
    "latin-1": ("jsonl", b'\n{"a": "\xe9"}\n', "line 2: not UTF-8 text (byte 8"),
    "UTF-16": ("csv", "references,seen\n".encode("utf-16"), "line 1: not UTF-8 text"),
    "NUL": ("tsv", b"references\tseen\n\0\tb\n", "line 2: holds a NUL"),
    "a list": ("jsonl", b"[1]\n", "line 1: expected an object"),
    "deep": ("jsonl", b"[" * 100_000 + b"\n", "line 1: not valid JSON"),
    "a long number": ("jsonl", b'{"a": ' + b"9" * 6000 + b"}\n", "line 1: not valid JSON"),
    "half a pair": ("jsonl", rb'{"a": "\ud83d"}' + b"\n", "line 1: holds half of a surrogate"),
    "a name twice": ("jsonl", b'{"a": 1, "a": 2}\n', "the name 'a' stands twice"),
    "no references": ("jsonl", b'{"seen": 1, "references": []}\n', "field 'references' is empty"),
    "blank reference": ("jsonl", b'{"seen": 1, "references": " "}\n', "a text that is not empty"),
    "not Parquet": ("parquet", b"PAR1 no PAR1", "not a Parquet file"),
    "empty Parquet": ("parquet", b"", "not a Parquet file"),
    "meaning": ("e2e", b"mr,ref\nname[x,It is.\n", "line 2, field 'mr': expected slot[value]"),
    "XML bomb": (
        "webnlg",
        b'<!DOCTYPE b [<!ENTITY a "aaaaaaaaaa">'
        + b"".join(
            b'<!ENTITY %c "%s">' % (c, b"&%c;" % (c - 1) * 10) for c in range(ord("b"), ord("p"))
        )
        + b"]><benchmark>&o;</benchmark>",
        "line 1, column",
    ),
    "deep XML": ("webnlg", b"<a>" * 50_000, "line 1"),
    "deep JSON": ("squad", b"[" * 100_000, "not valid JSON"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_hand(name: str, tmp_path: Path) -> None:
    format, raw, expected = REFUSED[name]
    file = tmp_path / "data"
    file.write_bytes(raw)
    with pytest.raises(DataError) as caught:
        read_examples(file, format, group=GROUPS.get(format))
    assert str(caught.value).startswith(str(file))
    assert expected in str(caught.value)


@pytest.mark.parametrize("format", [*TEXTS, "parquet"])
def test_file_that_cannot_be_opened(format: str, tmp_path: Path) -> None:
    for file in (tmp_path / "nothing.jsonl", tmp_path):
        with pytest.raises(UserError, match=re.escape(str(file))):
            read_examples(file, format)


@pytest.mark.parametrize("format", TEXTS)
def test_windows_files_read_the_same(format: str, tmp_path: Path) -> None:
    plain, windows = tmp_path / "plain.jsonl", tmp_path / "windows.jsonl"
    text = TEXTS[format] if format != "csv" else CSV.replace(",\nthe", ", the")
    plain.write_bytes(text.encode())
    windows.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    read = [read_examples(file, format) for file in (plain, windows)]
    assert [(e.fields, e.references, e.words, e.tags, e.spans) for e in read[0]] == [
        (e.fields, e.references, e.words, e.tags, e.spans) for e in read[1]
    ]
