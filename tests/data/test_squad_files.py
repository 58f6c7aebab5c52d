"""SQuAD files: questions with and without answers, and offsets that are checked."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from foreword.data import Span, read_data, read_examples
from foreword.errors import DataError

CONTEXT = "Zoë 🙂 saw Ana in Łódź. Ana left."
V2: dict[str, Any] = {
    "version": "v2.0",
    "data": [
        {
            "title": "Trips",
            "paragraphs": [
                {
                    "context": CONTEXT,
                    "qas": [
                        {
                            "id": "q1",
                            "question": "Whom did Zoë see?",
                            "is_impossible": False,
                            "answers": [
                                {"text": "Ana", "answer_start": 10},
                                {"text": "Ana", "answer_start": 10},
                                {"text": "Ana", "answer_start": 23},
                                {"text": "saw Ana", "answer_start": 6},
                            ],
                        },
                        {
                            "id": "q2",
                            "question": "When?",
                            "is_impossible": True,
                            "answers": [],
                            "plausible_answers": [{"text": "in Łódź", "answer_start": 14}],
                        },
                    ],
                }
            ],
        }
    ],
}


def write(folder: Path, content: Any) -> Path:
    file = folder / "data.json"
    file.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return file


def changed(*path: Any, **new: Any) -> Any:
    """The file with some values of one object replaced; None takes one away."""
    tree = copy.deepcopy(V2)
    here: Any = tree
    for key in path:
        here = here[key]
    for name, value in new.items():
        here[name] = value
        if value is None:
            del here[name]
    return tree


QUESTIONS = ("data", 0, "paragraphs", 0, "qas")
FIRST, SECOND = (*QUESTIONS, 0), (*QUESTIONS, 1)


def test_questions_answers_and_none(tmp_path: Path) -> None:
    first, second = read_examples(write(tmp_path, V2), "squad", group="answerable")
    assert first.spans == (Span("Ana", 10), Span("Ana", 23), Span("saw Ana", 6))
    assert all(CONTEXT[s.start :].startswith(s.text) for s in first.spans)
    assert first.references == ("Ana", "saw Ana")
    assert first.fields["question"] == "Whom did Zoë see?"
    assert (first.fields["context"], first.fields["id"]) == (CONTEXT, "q1")
    assert (second.spans, second.references) == ((), ())
    assert (first.group, second.group) == ("answerable", "not answerable")


def test_version_1(tmp_path: Path) -> None:
    content = changed(*FIRST, is_impossible=None)
    del content["data"][0]["paragraphs"][0]["qas"][1]
    (only,) = read_examples(write(tmp_path, content), "squad")
    assert only.spans is not None
    assert len(only.spans) == 3


def test_questions_alone(tmp_path: Path) -> None:
    content = changed(*FIRST, answers=None, is_impossible=None)
    first, second = read_examples(write(tmp_path, content), "squad", need_references=False)
    assert (first.spans, second.spans) == (None, ())


def test_an_empty_question_is_left_out_and_told(tmp_path: Path) -> None:
    file = write(tmp_path, changed(*FIRST, question="  "))
    reading = read_data(file, "squad")
    assert len(reading.examples) == 1
    assert reading.empty == (f"{file}, data[0].paragraphs[0].qas[0] (id q1)",)


@pytest.mark.parametrize(
    ("path", "new", "where", "said"),
    [
        (
            (*FIRST, "answers", 1),
            {"answer_start": 11},
            "data[0].paragraphs[0].qas[0] (id q1).answers[1], field 'answer_start'",
            "at 11 stands 'na ', not 'Ana'; it stands at 10",
        ),
        ((*FIRST, "answers", 0), {"answer_start": -3}, "answers[0]", "it stands at 10"),
        ((*FIRST, "answers", 2), {"answer_start": 22}, "answers[2]", "it stands at 23"),
        ((*FIRST, "answers", 0), {"text": "Bo"}, "answers[0]", "does not stand in the context"),
        ((*FIRST, "answers", 0), {"text": ""}, "field 'text'", "a text that is not empty"),
        ((*FIRST, "answers", 0), {"answer_start": "10"}, "answers[0]", "expected a number"),
        ((*FIRST, "answers", 0), {"answer_start": True}, "answers[0]", "expected a number"),
        (FIRST, {"answers": []}, "(id q1), field 'answers'", "is_impossible: true"),
        (FIRST, {"answers": None}, "(id q1)", "expected 'answers', a list"),
        (FIRST, {"answers": ["Ana"]}, "answers[0]", "expected an object"),
        (FIRST, {"question": 3}, "field 'question'", "expected a text, found 3"),
        (FIRST, {"is_impossible": "no"}, "is_impossible", "expected true or false"),
        (FIRST, {"is_impossible": True}, "(id q1)", "is_impossible, but has answers"),
        (SECOND, {"is_impossible": False}, "(id q2)", "expected one at least"),
        (("data", 0, "paragraphs", 0), {"context": None}, "paragraphs[0]", "'context'"),
        (("data", 0), {"paragraphs": {}}, "data[0]", "expected 'paragraphs', a list"),
        ((), {"data": None}, "data.json", "expected 'data', a list"),
        ((), {"data": [3]}, "data[0]", "expected an object, found 3"),
        ((), {"data": []}, "data.json", "no examples"),
    ],
)
def test_wrong_files(
    path: tuple[Any, ...], new: dict[str, Any], where: str, said: str, tmp_path: Path
) -> None:
    file = write(tmp_path, changed(*path, **new))
    with pytest.raises(DataError) as caught:
        read_examples(file, "squad")
    message = str(caught.value)
    assert message.startswith(str(file))
    assert where in message
    assert said in message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "line 1, column 1: not valid JSON"),
        ('{"data":\n [1,]}', "line 2, column 5: not valid JSON"),
        ("[]", "expected 'data', a list, as SQuAD has it, found []"),
        ('{"data": [], "data": []}', "the name 'data' stands twice"),
        ('{"data": "\\ud83d"}', "half of a surrogate pair"),
    ],
)
def test_files_that_are_no_squad(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "data.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_examples(file, "squad")
    assert str(caught.value).startswith(str(file))
    assert said in str(caught.value)
