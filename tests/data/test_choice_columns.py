"""Rows with choices of their own: columns, MultiRC and ReCoRD, and what may be wrong with one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from foreword.data import read_examples, take_census
from foreword.errors import DataError, RecipeError
from foreword.recipe import parse_recipe

PASSAGE = {
    "passage": {
        "text": "Zoë saw Ana. Ana ran.",
        "questions": [
            {
                "question": "Who ran?",
                "answers": [
                    {"text": "Ana", "label": 1},
                    {"text": "Zoë", "label": 0},
                    {"text": "Ana", "label": 1},
                ],
            },
            {"question": "Who sang?", "answers": [{"text": "Bo", "label": 0}]},
        ],
    }
}
CLOZE = {
    "passage": {
        "text": "Zoë saw Ana in Łódź.\n@highlight\nAna ran",
        "entities": [{"start": 0, "end": 2}, {"start": 8, "end": 10}, {"start": 32, "end": 34}],
    },
    "qas": [
        {"query": "Before Zoë came, @placeholder ran.", "answers": [{"text": "Ana"}]},
        {"query": "@placeholder saw her", "answers": [{"text": "Zoë"}, {"text": "Zoë"}]},
    ],
}


def jsonl(folder: Path, *rows: Any) -> Path:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def chosen(file: Path, format: str = "jsonl", **options: Any) -> list[Any]:
    return [(e.choices, e.right) for e in read_examples(file, format, **options)]


def test_a_choice_in_each_of_several_columns(tmp_path: Path) -> None:
    file = jsonl(
        tmp_path,
        {"p": "x", "a": "one", "b": "two", "c": "three", "label": 2},
        {"p": "y", "a": "one", "b": "two", "c": None, "label": 0},
    )
    found = read_examples(file, "jsonl", choices=("a", "b", "c"))
    assert [(e.choices, e.right) for e in found] == [
        (("one", "two", "three"), (2,)),
        (("one", "two"), (0,)),
    ]
    assert found[0].fields == {"p": "x", "a": "one", "b": "two", "c": "three"}
    assert found[0].references == ("three",)
    assert not found[0].asks_text
    (tmp_path / "x.csv").write_text("p,a,b,gold\nx,one,two,1\ny,one,,0\n", encoding="utf-8")
    assert chosen(tmp_path / "x.csv", "csv", choices=("a", "b"), right="gold") == [
        (("one", "two"), (1,)),
        (("one",), (0,)),
    ]


@pytest.mark.parametrize(
    ("endings", "label", "right"),
    [
        (["a", "b", "c"], 2, (2,)),
        (["a", "b", "c"], "1", (1,)),
        (["a", "b", "c"], "c", (2,)),
        (["a", "b", "c"], ["c", 0], (0, 2)),
        (["a", "b"], [], ()),
        ([3, 4.5, 7], 0, (0,)),
        (["7", "8"], "8", (1,)),
        (["1", "0"], 1, (1,)),
        ({"label": ["A", "B"], "text": ["x", "y"]}, "B", (1,)),
        ({"label": ["1", "2"], "text": ["x", "y"]}, "1", (0,)),
        ({"text": ["x", "y"]}, "y", (1,)),
    ],
)
def test_which_one_is_right(endings: Any, label: Any, right: Any, tmp_path: Path) -> None:
    file = jsonl(tmp_path, {"p": "x", "endings": endings, "gold": label})
    ((texts, found),) = chosen(file, choices="endings", right="gold")
    assert found == right
    assert all(isinstance(text, str) for text in texts)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"endings": ["a", "b"]}, "field 'label' is missing; expected which of the choices is"),
        ({"endings": ["a", "b"], "label": 2}, "expected a number from 0 to 1, or the text of a"),
        ({"endings": ["a", "b"], "label": -1}, "found -1"),
        ({"endings": ["a", "b"], "label": True}, "found True"),
        ({"endings": ["a", "b"], "label": "c"}, "found 'c'"),
        ({"endings": ["a", "b"], "label": [0, "a"]}, "a choice stands twice in [0, 'a']"),
        ({"endings": ["1", "0"], "label": "0"}, "'0' is a choice's number and another one's text"),
        ({"endings": "a, b", "label": 0}, "expected a list of choices, found 'a, b'"),
        ({"endings": [], "label": 0}, "expected a list of choices, found []"),
        ({"endings": None, "label": 0}, "field 'endings' is empty; expected a list of choices"),
        ({"label": 0}, "field 'endings' is missing"),
        ({"endings": ["a", " "], "label": 0}, "a text that is not empty as choice 1, found ' '"),
        ({"endings": ["a", None], "label": 0}, "as choice 1, found None"),
        ({"endings": {"label": ["A"], "text": ["x", "y"]}, "label": "A"}, "a name of its own for"),
        ({"endings": {"label": ["A", "B"], "text": ["x", "y"]}, "label": 0}, "one of A, B, or"),
    ],
)
def test_what_is_wrong_is_said_by_line(row: dict[str, Any], said: str, tmp_path: Path) -> None:
    file = jsonl(tmp_path, {"p": "x", "endings": ["a", "b"], "label": 0}, {"p": "y", **row})
    with pytest.raises(DataError) as caught:
        read_examples(file, "jsonl", choices="endings")
    assert str(caught.value).startswith(f"{file}, line 2")
    assert said in str(caught.value)


def test_columns_without_choices(tmp_path: Path) -> None:
    file = jsonl(tmp_path, {"p": "x", "a": "one", "c": "two", "label": 0})
    with pytest.raises(DataError, match=r"line 1: field 'b' is missing; expected a choice"):
        read_examples(file, "jsonl", choices=("a", "b"))
    with pytest.raises(DataError, match=r"field 'b': expected a text that is not empty"):
        read_examples(
            jsonl(tmp_path, {"a": "x", "b": "", "c": "z", "label": 0}),
            "jsonl",
            choices=("a", "b", "c"),
        )
    with pytest.raises(DataError, match=r"field 'a': expected a choice, found nothing"):
        read_examples(
            jsonl(tmp_path, {"p": "x", "a": "", "b": None, "label": 0}),
            "jsonl",
            choices=("a", "b"),
        )


def test_rows_whose_answer_is_not_known(tmp_path: Path) -> None:
    file = jsonl(tmp_path, {"p": "x", "endings": ["a", "b"]})
    assert chosen(file, choices="endings", need_references=False) == [(("a", "b"), None)]


def test_multirc(tmp_path: Path) -> None:
    first, second = read_examples(jsonl(tmp_path, PASSAGE), "multirc")
    assert first.fields == {
        "passage": "Zoë saw Ana. Ana ran.",
        "question": "Who ran?",
        "choices": "Ana, Zoë, Ana",
    }
    assert (first.choices, first.right) == (("Ana", "Zoë", "Ana"), (0, 2))
    assert (second.choices, second.right) == (("Bo",), ())


def test_record(tmp_path: Path) -> None:
    first, second = read_examples(jsonl(tmp_path, CLOZE), "record")
    assert first.choices == second.choices == ("Zoë", "Ana")
    assert (first.right, second.right) == ((1,), (0,))
    assert (first.fields["before"], first.fields["after"]) == ("Before Zoë came,", " ran.")
    assert (second.fields["before"], second.fields["after"]) == ("", " saw her")


def changed(tree: Any, path: str, value: Any) -> Any:
    tree = json.loads(json.dumps(tree))
    here, *rest = path.split(".")
    parts = [int(part) if part.isdecimal() else part for part in (here, *rest)]
    inner = tree
    for part in parts[:-1]:
        inner = inner[part]
    if value is None:
        del inner[parts[-1]]
    else:
        inner[parts[-1]] = value
    return tree


@pytest.mark.parametrize(
    ("format", "tree", "path", "value", "said"),
    [
        ("multirc", PASSAGE, "passage", None, "field 'passage': expected an object, found None"),
        ("multirc", PASSAGE, "passage.text", 3, "field 'passage.text': expected a text, found 3"),
        ("multirc", PASSAGE, "passage.questions.1", 3, "'passage.questions[1]': expected an obj"),
        (
            "multirc",
            PASSAGE,
            "passage.questions.0.answers.1.label",
            2,
            "'passage.questions[0].answers[1].label': expected 1 or 0, found 2",
        ),
        (
            "multirc",
            PASSAGE,
            "passage.questions.0.answers.1",
            "x",
            "'passage.questions[0].answers[1]': expected an object, found 'x'",
        ),
        ("record", CLOZE, "passage.entities.0.end", -1, "'passage.entities[0]': expected `start`"),
        ("record", CLOZE, "qas.1.query", "x", "'qas[1].query': expected a text with @placeholder"),
        ("record", CLOZE, "qas.0.answers.0.text", "Bo", "expected an entity of the passage, found"),
        ("record", CLOZE, "qas.0.answers", None, "field 'qas[0].answers': expected a list"),
    ],
)
def test_nested_rows_that_are_wrong(
    format: str, tree: Any, path: str, value: Any, said: str, tmp_path: Path
) -> None:
    file = jsonl(tmp_path, tree, changed(tree, path, value))
    with pytest.raises(DataError) as caught:
        read_examples(file, format)
    assert str(caught.value).startswith(f"{file}, line 2")
    assert said in str(caught.value)


def test_what_is_counted(tmp_path: Path) -> None:
    rows = [{"p": "x", "c": ["a", "b"], "label": 0}, {"p": "x", "c": ["a", "b"], "label": 1}]
    rows.append({"p": "x", "c": ["a", "c"], "label": 1})
    found = read_examples(jsonl(tmp_path, *rows), "jsonl", choices="c", inputs=["p"])
    lines = take_census(found, inputs=["p"]).lines("train")
    assert lines[1] == "  choice 1 is right 2 (66.7 %), choice 0 is right 1 (33.3 %)"
    assert any("1 input with different answers" in line for line in lines)


def test_the_real_files(shared: Any) -> None:
    folder = shared("data/fewglue")
    copa = read_examples(folder / "COPA/val.jsonl", "jsonl", choices=("choice1", "choice2"))
    assert (len(copa), sum(e.right == (0,) for e in copa)) == (100, 55)
    multirc = read_examples(folder / "MultiRC/val.jsonl", "multirc")
    assert (len(multirc), sum(len(e.choices or ()) for e in multirc)) == (953, 4848)


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ({"choices": ["a"]}, "task.data.choices: expected at least 2 items"),
        ({"choices": "a", "label": "b"}, "give one of"),
        ({"right": "b"}, "`right` is for choices"),
        ({"format": "squad", "choices": "a"}, "`choices` is for the formats jsonl"),
    ],
)
def test_data_sections_that_make_no_sense(task: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(recipe({"data": task}))
    assert said in str(caught.value)


def recipe(task: dict[str, Any]) -> dict[str, Any]:
    data = {"format": "jsonl", "train": "a", "dev": "b", **task.pop("data", {"choices": "c"})}
    return {
        "version": 1,
        "name": "one",
        "backbone": "foreword/mini",
        "method": "p-tuning-v2",
        "task": {"input": "{text}", **task, "data": data},
    }


WORDS = {"words": {"right": "yes", "wrong": "no"}}


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ({"choice": {"by": "head"}}, "`input` does not name {choice}"),
        ({"verbalizer": WORDS, "input": "{text} {mask}"}, "`input` does not name {choice}"),
        ({"choice": {"select": "several"}}, "needs choices to be judged one by one"),
        ({"second": "{text}"}, "`second` has no place where choices are scored by likelihood"),
        ({"head": {"hidden": 3}}, "`head` is not read where choices are scored by another"),
        ({"verbalizer": {"words": {"a": "x", "b": "y"}}}, "are of `right` and `wrong`"),
        (
            {"input": "{text} {choice}", "choice": {"by": "head", "normalise": "tokens"}},
            "`choice.normalise` and `choice.objective` are for choices that are scored by",
        ),
        ({"threshold": 0.4}, "`threshold` is for several labels a row"),
        ({"labels": ["a", "b"]}, "`labels` are for tasks with labels or tags"),
        ({"metrics": ["f1"]}, "choose among accuracy, acc, acc_norm, choices_f1, chosen_f1"),
        ({"data": {"label": "x"}, "choice": {"by": "head"}}, "`choice` is for rows with choices"),
        ({"input": "{text} {mask}"}, "nothing says which words stand"),
    ],
)
def test_tasks_that_make_no_sense(task: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(recipe(task))
    assert said in str(caught.value)


def test_units_of_losses() -> None:
    def unit(**task: Any) -> str:
        return parse_recipe(recipe(task)).task.loss_unit

    assert unit() == "nats per choice"
    assert unit(choice={"objective": "generative"}) == "nats per target token"
    assert unit(choice={"by": "head"}, input="{text} {choice}") == "nats per choice"
    assert unit(data={"number": "n"}) == "squared error per number"
