"""Rows with a text that belongs to theirs, and how alike the two are; what may be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from foreword.data import read_data, read_examples
from foreword.errors import DataError, RecipeError
from foreword.recipe import parse_recipe


def jsonl(folder: Path, *rows: Any) -> Path:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def test_paired_texts(tmp_path: Path) -> None:
    file = jsonl(tmp_path, {"a": "x", "b": "y"}, {"a": "x", "b": ["z", "w"]}, {"a": "x", "b": "y"})
    found = read_examples(file, "jsonl", paired="b")
    assert [e.paired for e in found] == [("y",), ("z", "w"), ("y",)], "rows stay apart"
    assert all(dict(e.fields) == {"a": "x"} for e in found), "what is to be found is not read"
    assert not any(e.asks_text for e in found)
    scored = tmp_path / "rows.tsv"
    scored.write_text("a\tb\ts\nx\ty\t0.5\nu\tv\t-1e-3\n")
    found = read_examples(scored, "tsv", paired="b", similarity="s")
    assert [(e.paired, e.number) for e in found] == [(("y",), 0.5), (("v",), -0.001)]
    assert dict(found[0].fields) == {"a": "x"}
    bare = read_examples(
        jsonl(tmp_path, {"a": "x"}), "jsonl", paired="b", similarity="s", need_references=False
    )
    assert (bare[0].paired, bare[0].number) == (None, None)


@pytest.mark.parametrize(
    ("row", "wrong"),
    [
        ({"a": "x"}, "line 2: field 'b' is missing"),
        ({"a": "x", "b": " "}, "line 2, field 'b': expected a text that is not empty"),
        ({"a": "x", "b": 3}, "line 2, field 'b': expected a text that is not empty"),
        ({"a": "x", "b": [""]}, "line 2, field 'b': expected a text that is not empty"),
        ({"a": "x", "b": ["y", "z"], "s": 1}, "line 2, field 'b': expected one text, of which 's'"),
        ({"a": "x", "b": "y"}, "line 2: field 's' is missing"),
        ({"a": "x", "b": "y", "s": "much"}, "line 2, field 's': expected a number"),
        ({"a": "x", "b": "y", "s": True}, "line 2, field 's': expected a number"),
        ({"a": "x", "b": "y", "s": "nan"}, "line 2, field 's': expected a number"),
    ],
)
def test_what_is_wrong_with_a_row(row: Any, wrong: str, tmp_path: Path) -> None:
    file = jsonl(tmp_path, {"a": "x", "b": "y", "s": 1}, row)
    with pytest.raises(DataError, match=f"rows.jsonl, {wrong}"):
        read_examples(file, "jsonl", paired="b", similarity="s", inputs=["a"])


def test_a_row_without_a_text_is_left_out_and_counted(tmp_path: Path) -> None:
    file = jsonl(tmp_path, {"a": "x", "b": "y"}, {"a": " ", "b": "y"})
    reading = read_data(file, "jsonl", paired="b", inputs=["a"])
    assert len(reading.examples) == 1
    assert [where.split("rows.jsonl, ")[1] for where in reading.empty] == ["line 2"]


def test_an_empty_list_pairs_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="line 1, field 'b': expected a text, found an empty list"):
        read_examples(jsonl(tmp_path, {"a": "x", "b": []}), "jsonl", paired="b")


def recipe(data: Any, **task: Any) -> Any:
    files = {"format": "jsonl", "train": "a.jsonl", "dev": "a.jsonl"}
    training = task.pop("training", {"steps": 1})
    return {
        "version": 1,
        "name": "pairs",
        "backbone": "foreword/mini",
        "task": {"data": {**files, **data}, "input": "{a}", **task},
        "method": {"name": "p-tuning", "length": 2} if "soft" in str(task) else "p-tuning-v2",
        "training": training,
    }


def test_what_follows_from_the_columns() -> None:
    paired = parse_recipe(recipe({"paired": "b"})).task
    assert paired.answer == "vector"
    assert paired.measured == ("recall_at_1", "recall_at_10", "mrr")
    assert paired.vector.of(None) == "info_nce"
    scored = parse_recipe(recipe({"paired": "b", "similarity": "s"})).task
    assert scored.measured == ("pearson", "spearman")
    assert scored.vector.of("s") == "cosent"
    slots = parse_recipe(recipe({"paired": "b"}, input="{soft:2}{a}", second="{soft:2}{b}"))
    assert (slots.task.soft, slots.method.length) == (2, 2)


@pytest.mark.parametrize(
    ("data", "task", "wrong"),
    [
        ({"similarity": "s"}, {}, "give `paired`"),
        ({"paired": "b", "similarity": "b"}, {}, "give `paired`"),
        ({"paired": "b", "label": "s"}, {}, "give one of `label`, `paired`"),
        ({"paired": "b"}, {"vector": {"loss": "cosent"}}, "give `data.similarity`"),
        ({"paired": "b", "similarity": "s"}, {"vector": {"loss": "info_nce"}}, "choose cosent or"),
        ({"label": "b"}, {"vector": {"scale": 3}}, "give `data.paired`"),
        ({"paired": "b"}, {"vector": {"scale": 0}}, "task.vector.scale: must be more than 0"),
        ({"paired": "b"}, {"head": {"pooling": "mean"}}, "give `vector`"),
        ({"paired": "b"}, {"target": "x {reference}"}, "`second` says how such a text is read"),
        ({"paired": "b"}, {"input": "{a}{mask}"}, "{mask} has no meaning"),
        ({"paired": "b"}, {"input": "{soft:2}{a}"}, "has 2 {soft} slots and `second` 0"),
        ({"paired": "b"}, {"metrics": ["spearman"]}, "give `task.data.similarity`"),
        ({"paired": "b", "similarity": "s"}, {"metrics": ["mrr"]}, "choose among pearson, spea"),
        ({"paired": "b"}, {"training": {"steps": 1, "best_by": "pearson"}}, "give `task.data.sim"),
        ({"paired": "b"}, {"training": {"steps": 1, "best_by": "bleu"}}, "asks for a vector"),
    ],
)
def test_what_is_wrong_with_a_recipe(data: Any, task: Any, wrong: str) -> None:
    with pytest.raises(RecipeError) as raised:
        parse_recipe(recipe(data, **task))
    assert wrong in str(raised.value)
