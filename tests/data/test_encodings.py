"""Text files in other encodings than UTF-8, named by a field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from foreword.data import read_data
from foreword.data.lines import check_encoding, text_lines
from foreword.errors import DataError, RecipeError
from foreword.recipe import parse_recipe

CHINESE = "房间很大，服务很好"
ENCODINGS = ["gb18030", "gbk", "GB2312", "utf-16", "utf-16-le", "utf-32", "utf-8-sig", "hz"]
SQUAD = {
    "data": [
        {"title": "t", "paragraphs": [{"context": CHINESE, "qas": [{"id": "1", "question": "q"}]}]}
    ]
}
FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "csv": (f"text,label\n{CHINESE},1\nb,0\n", {"label": "label"}),
    "tsv": (f"text\tlabel\r\n{CHINESE}\t1\r\n", {"label": "label"}),
    "jsonl": (json.dumps({"text": CHINESE, "label": 1}, ensure_ascii=False), {"label": "label"}),
    "conll": (f"{CHINESE} O\n\nb O\n", {}),
    "squad": (json.dumps(SQUAD, ensure_ascii=False), {"need_references": False}),
    "e2e": (f"mr,ref\nname[{CHINESE}],x\n", {}),
    "xsum": (json.dumps({"document": CHINESE, "summary": "s"}, ensure_ascii=False) + "\n", {}),
    "dart": (
        json.dumps(
            [{"tripleset": [[CHINESE, "b", "c"]], "annotations": [{"text": "t"}]}],
            ensure_ascii=False,
        ),
        {},
    ),
    "webnlg": (
        f"<b><entry><modifiedtripleset><mtriple>{CHINESE} | b | c</mtriple></modifiedtripleset>"
        "<lex>t</lex></entry></b>",
        {},
    ),
}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("format", FORMATS)
def test_every_text_format(format: str, encoding: str, tmp_path: Path) -> None:
    content, options = FORMATS[format]
    file = tmp_path / ("x.jsonl" if format == "xsum" else "x")
    file.write_bytes(content.encode(encoding))
    (first, *_) = read_data(file, format, encoding=encoding, **options).examples
    assert CHINESE in " ".join(map(str, first.fields.values()))


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32"])
def test_lines_where_a_line_feed_is_more_than_its_byte(encoding: str, tmp_path: Path) -> None:
    """U+0A0A and U+0B0A hold bytes that are a line feed in ASCII."""
    lines = ["\u0a0a\u0b0a ab\r\n", "\n", "last"]
    (tmp_path / "x").write_bytes("".join(lines).encode(encoding))
    assert list(text_lines(tmp_path / "x", encoding)) == list(enumerate(lines, 1))


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    for encoding in ("utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "gb18030"):
        (tmp_path / "x").write_bytes("\ufeffa\n\ufeffb\n".encode(encoding))
        assert [line for _, line in text_lines(tmp_path / "x", encoding)] == ["a\n", "\ufeffb\n"]


@pytest.mark.parametrize(
    ("raw", "encoding", "said"),
    [
        (
            f"a\n{CHINESE}\n".encode("gb18030"),
            "utf-8",
            "x, line 2: not UTF-8 text (byte 1 of the line); save the file as UTF-8, or give its "
            "encoding as `encoding` (gb18030, big5, utf-16, latin-1, …)",
        ),
        (f"{CHINESE}\n".encode("utf-16"), "utf-8", "it looks like utf-16"),
        ("ab\n".encode("utf-16-le"), "utf-8", "holds a NUL character; it looks like utf-16"),
        (b"a\nb\xff\xff\n", "gb18030", "x, line 2: not gb18030 text (byte 2 of the line); give"),
        (b"a\nb\xe7", "utf-8", "x, line 2: not UTF-8 text; save"),
        (b"a\n", "utf-16", "x, line 1: not utf-16 text"),
        (b"\x00", "utf-16", "x, line 1: not utf-16 text"),
    ],
)
def test_what_is_no_text_is_named_by_line(
    raw: bytes, encoding: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "x").write_bytes(raw)
    with pytest.raises(DataError) as raised:
        list(text_lines(tmp_path / "x", encoding))
    assert said in str(raised.value)


@pytest.mark.parametrize(
    "name", ["", "utf-9", "base64", "rot13", "hex", "idna", "undefined", "a\0b", "火", "zip"]
)
def test_what_is_no_encoding_of_files(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^encoding: expected the name of a text encoding"):
        check_encoding(name)
    (tmp_path / "x.csv").write_text("a\n1\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"^encoding: expected"):
        read_data(tmp_path / "x.csv", "csv", encoding=name, need_references=False)
    with pytest.raises(RecipeError, match=r"task\.data\.encoding: expected the name of"):
        recipe(encoding=name)


def recipe(**data: Any) -> Any:
    return parse_recipe(
        {
            "version": 1,
            "name": "x",
            "backbone": "foreword/mini",
            "task": {
                "data": {"format": "csv", "train": "x.csv", "dev": "x.csv", "label": "y", **data},
                "input": "{text}",
            },
            "method": "p-tuning-v2",
        }
    )


def test_a_recipe_names_it() -> None:
    assert recipe().task.data.encoding == "utf-8"
    assert recipe(encoding="GB18030").task.data.options("train")["encoding"] == "GB18030"


def test_a_parquet_file_has_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="texts of a Parquet file are UTF-8; leave `encoding` out"):
        read_data(tmp_path / "x.parquet", "parquet", encoding="gbk")


def test_data_that_comes_with_the_package_stays_utf8() -> None:
    examples = read_data("foreword/fieldguide/dev", "jsonl", encoding="utf-16").examples
    assert examples == read_data("foreword/fieldguide/dev", "jsonl").examples
