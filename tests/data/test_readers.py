"""Readers: what comes out of each format, and what is said about a malformed file."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from foreword.data import Example, linearise, read_examples
from foreword.data.e2e import parse_meaning
from foreword.errors import DataError, UserError
from foreword.templates import Template

E2E = """mr,ref
"name[The Vaults], eatType[pub], priceRange[over £30], near[Café Adriatic]","A pub, The Vaults."
"name[Aromi], familyFriendly[no]",Aromi is for adults.
"name[The Vaults], eatType[pub], priceRange[over £30], near[Café Adriatic]","The ""Vaults""
is a pub."
"eatType[pub], name[The Vaults], priceRange[over £30], near[Café Adriatic]",Another order.
"""


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(text: str, name: str = "data") -> Path:
        file = tmp_path / name
        file.write_text(text, encoding="utf-8", newline="")
        return file

    return write


def jsonl(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def refused(file: Path, format: str, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        read_examples(file, format, **options)
    return str(caught.value)


def test_e2e_groups_references_by_meaning(write: Any) -> None:
    first, second, third = read_examples(write(E2E), "e2e")
    assert first.references == ("A pub, The Vaults.", 'The "Vaults"\nis a pub.')
    assert second.references == ("Aromi is for adults.",)
    assert third.references == ("Another order.",)
    assert [e.where.split(", ")[1] for e in (first, second, third)] == [
        "line 2",
        "line 3",
        "line 6",
    ]


def test_e2e_is_linearised_as_in_the_paper(write: Any) -> None:
    examples = read_examples(write(E2E), "e2e")
    assert [linearise(example.fields["record"]) for example in examples] == [
        "name : The Vaults | Type : pub | price : over £30 | near : Café Adriatic",
        "name : Aromi | family friendly : no",
        "Type : pub | name : The Vaults | price : over £30 | near : Café Adriatic",
    ]
    assert examples[1].record == {"name": "Aromi", "family friendly": "no"}


@pytest.mark.parametrize(
    ("text", "record"),
    [
        ("name[X]", {"name": "X"}),
        (" name [ X ] ,food[ ]", {"name": "X", "food": ""}),
        ("customer rating[5 out of 5]", {"customer rating": "5 out of 5"}),
    ],
)
def test_meaning(text: str, record: dict[str, str]) -> None:
    assert parse_meaning(text) == record


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected slot[value]"),
        ("name", "goes wrong at 'name'"),
        ("name[X", "goes wrong at 'name[X'"),
        ("name[X],", "goes wrong at ''"),
        ("name[X] food[Y]", "goes wrong at 'name[X] food[Y]'"),
        ("name[X], food[[Y]]", "goes wrong at ' food[[Y]]'"),
        ("name[X], name[Y]", "slot 'name' stands twice"),
    ],
)
def test_wrong_meaning(text: str, said: str, write: Any) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        parse_meaning(text)
    if text:
        file = write(f'mr,ref\n"name[A]",a\n"{text}",b\n')
        assert f"{file}, line 3, field 'mr': " in refused(file, "e2e")


def test_e2e_cells_must_not_be_empty(write: Any) -> None:
    assert "line 2, field 'ref': expected a text that is not empty" in refused(
        write("mr,ref\nname[A],\n"), "e2e"
    )
    assert "line 2: expected 2 fields (mr, ref), found 1" in refused(write("mr,ref\nx\n"), "e2e")


def test_records_keep_their_order_and_only_their_own_names(write: Any) -> None:
    file = write(
        jsonl(
            {"record": {"z": 1, "a": "two"}, "references": ["x"]},
            {"record": {"a": True, "z": 0.5, "m": "NA"}, "references": "y"},
        )
    )
    first, second = read_examples(file, "jsonl")
    assert list(first.fields["record"].items()) == [("z", "1"), ("a", "two")]
    assert list(second.fields["record"].items()) == [("a", "yes"), ("z", "0.5"), ("m", "NA")]
    assert linearise(second.fields["record"]) == "a : yes | z : 0.5 | m : NA"
    assert (first.references, second.references) == (("x",), ("y",))


@pytest.mark.parametrize(("format", "comma"), [("csv", ","), ("tsv", "\t")])
def test_cells_are_texts(format: str, comma: str, write: Any) -> None:
    rows = [["id", "text", "references"], ["007", "NA", "null"], ["1e3", "", "True"]]
    file = write("".join(comma.join(row) + "\n" for row in rows))
    first, second = read_examples(file, format)
    assert first.fields == {"id": "007", "text": "NA"}
    assert second.fields == {"id": "1e3", "text": ""}
    assert (first.references, second.references) == (("null",), ("True",))


def test_tsv_has_no_quotes(write: Any) -> None:
    file = write('input\treferences\n"half\ta "quote"\n', "x.tsv")
    (example,) = read_examples(file, "tsv")
    assert (example.fields["input"], example.references) == ('"half', ('a "quote"',))


def test_lines_are_counted_through_multiline_cells(write: Any) -> None:
    head = 'input,references\n"one\ntwo\nthree",a\n\n'
    assert "line 6: expected 2 fields (input, references), found 3" in refused(
        write(head + "x,y,z\n"), "csv"
    )
    assert "line 6, field 'references': expected a text" in refused(write(head + "x,\n"), "csv")
    assert "line 6: not valid CSV" in refused(write(head + '"x,y\n\n\n'), "csv")
    examples = read_examples(write(head + '"x\ny",b\nz,c\n'), "csv")
    assert [e.where.split(", ")[1] for e in examples] == ["line 2", "line 6", "line 8"]


def test_jsonl_lines_are_counted_through_blank_ones(write: Any) -> None:
    file = write('\n{"references": "a"}\n\n{"references": "a",}\n')
    assert "line 4, column 20: not valid JSON" in refused(file, "jsonl")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"a": "x"}, "field 'references' is missing; expected the reference text, or a list"),
        ({"a": "x", "reference": "y"}, "(did you mean 'reference'?)"),
        ({"references": None}, "field 'references' is empty; expected the reference text"),
        ({"references": 5}, "field 'references': expected a text that is not empty, or a list of"),
        ({"references": ["a", ""]}, "such texts, found ''"),
        ({"references": {"a": 1}}, "such texts, found {'a': 1}"),
    ],
)
def test_wrong_rows_are_named_by_line_and_field(row: dict[str, Any], said: str, write: Any) -> None:
    file = write(jsonl({"references": "fine"}, row))
    message = refused(file, "jsonl")
    assert message.startswith(f"{file}, line 2")
    assert said in message
    assert len(message) < len(str(file)) + 250


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([1], "field 'x': expected a text, a number, a list of texts"),
        ({}, "or a record of names and values, found {}"),
        ({"y": None}, "or a record of names and values, found {}"),
        ({"y": ["z" * 99]}, "field 'x.y': expected a text or a number, found ['zzz"),
    ],
)
def test_columns_that_no_template_names_do_not_matter(value: Any, said: str, write: Any) -> None:
    file = write(jsonl({"references": "a", "x": "fine"}, {"references": "b", "t": "c", "x": value}))
    _, example = read_examples(file, "jsonl")
    assert Template.parse("{t}").render(example.fields) == "c"
    assert example.record is None
    place = re.escape(f"{file}, line 2, field 'x")
    with pytest.raises(UserError, match=f"^{place}.*{re.escape(said[-20:])}"):
        Template.parse("{t} {x}").render(example.fields)
    with pytest.raises(UserError, match=f"^{place}.*{re.escape(said[-20:])}"):
        Template.parse("{x}").render({**example.fields, "reference": "b"})
    assert len(read_examples(file, "jsonl", inputs=["t"])) == 2
    message = refused(file, "jsonl", inputs=["t", "x"])
    assert message.startswith(f"{file}, line 2, field 'x")
    assert said in message
    assert len(message) < len(str(file)) + 250


def test_unusable_columns_tell_rows_apart_like_others(write: Any) -> None:
    rows = [{"t": "a", "x": [n], "references": f"r{n}"} for n in (1, 2, 1)]
    first, second = read_examples(write(jsonl(*rows)), "jsonl")
    assert (first.references, second.references) == (("r1", "r1"), ("r2",))


def test_the_column_of_references_can_be_named(write: Any) -> None:
    file = write(jsonl({"text": "a", "summary": "b"}))
    (example,) = read_examples(file, "jsonl", references="summary")
    assert (example.fields, example.references) == ({"text": "a"}, ("b",))
    assert "field 'sumary' is missing" in refused(file, "jsonl", references="sumary")
    assert "did you mean 'summary'?" in refused(file, "jsonl", references="sumary")


def test_references_need_not_be_there_for_input_alone(write: Any) -> None:
    file = write(jsonl({"text": "a"}))
    (example,) = read_examples(file, "jsonl", need_references=False)
    assert example == Example({"text": "a"}, where=f"{file}, line 1")


def test_lists_numbers_and_empty_columns(write: Any) -> None:
    file = write(jsonl({"x": ["a", "b"], "n": 3, "b": False, "none": None, "references": "r"}))
    (example,) = read_examples(file, "jsonl")
    assert example.fields == {"x": "a, b", "n": "3", "b": "no"}
    assert example.record is None


def test_groups(write: Any) -> None:
    rows = [{"seen": seen, "n": i, "references": "r"} for i, seen in enumerate([True, False, "x"])]
    examples = read_examples(write(jsonl(*rows)), "jsonl", group="seen")
    assert [example.group for example in examples] == ["seen", "not seen", "x"]
    message = refused(write(jsonl({"references": "r", "sen": 1})), "jsonl", group="seen")
    assert "field 'seen' is missing; expected the group this row is reported under" in message
    assert "did you mean 'sen'?" in message


def test_equal_rows_of_other_groups_stay_apart(write: Any) -> None:
    row = {"text": "a", "references": "r"}
    file = write("text,references,g\na,r,1\na,s,2\na,t,1\n")
    examples = read_examples(file, "csv", group="g")
    assert [(e.group, e.references) for e in examples] == [("1", ("r", "t")), ("2", ("s",))]
    (merged,) = read_examples(write(jsonl(row, {**row, "references": ["s", "r"]})), "jsonl")
    assert merged.references == ("r", "s", "r")


def test_parquet(tmp_path: Path) -> None:
    rows = [
        {
            "record": {"name": "A", "n": i},
            "seen": bool(i % 2),
            "id": f"00{i}",
            "references": [f"r{i}", "s"],
        }
        for i in range(3)
    ]
    file = tmp_path / "data.parquet"
    parquet.write_table(pa.Table.from_pylist(rows), file)
    examples = read_examples(file, "parquet", group="seen")
    assert [e.references for e in examples] == [("r0", "s"), ("r1", "s"), ("r2", "s")]
    assert [e.group for e in examples] == ["not seen", "seen", "not seen"]
    assert examples[1].fields == {"record": {"name": "A", "n": "1"}, "seen": "yes", "id": "001"}
    assert examples[1].where == f"{file}, row 2"
    rows[1]["references"] = []
    parquet.write_table(pa.Table.from_pylist(rows), file)
    assert f"{file}, row 2: field 'references' is empty" in refused(file, "parquet")
    assert "no such file" in refused(tmp_path / "none", "parquet")


def test_bundled_names() -> None:
    examples = read_examples("foreword/fieldguide/dev", "jsonl", group="seen")
    assert len(examples) == 60
    assert {example.group for example in examples} == {"seen"}
    assert "did you mean 'foreword/fieldguide/dev'?" in refused(
        Path("foreword/fieldguide/dve"), "jsonl"
    )


def test_the_real_e2e_file(shared: Any) -> None:
    examples = read_examples(shared("data/e2e/devset.csv"), "e2e")
    assert len(examples) == 547
    assert sum(len(example.references) for example in examples) == 4672
