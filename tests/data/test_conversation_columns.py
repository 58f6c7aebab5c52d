"""Conversations as a column: OpenAI's and ShareGPT's are the same; mistakes name their line."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from foreword.data import hold_out, merged, read_data, take_census
from foreword.data.conversation import Conversation
from foreword.data.example import Example
from foreword.data.messages import conversation_of
from foreword.errors import DataError

OPENAI = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is an otter?"},
    {"role": "assistant", "content": "An animal."},
    {"role": "user", "content": "Where does it live?"},
    {"role": "assistant", "content": "In rivers."},
]
SHAREGPT = [
    {"from": "system", "value": "Be brief."},
    {"from": "human", "value": "What is an otter?"},
    {"from": "gpt", "value": "An animal."},
    {"from": "human", "value": "Where does it live?"},
    {"from": "gpt", "value": "In rivers."},
]
ASK, SAY = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}


def jsonl(folder: Path, *rows: Any) -> Path:
    file = folder / "talks.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def talk(example: Example) -> Conversation:
    assert example.conversation is not None
    return example.conversation


def test_both_formats_are_the_same_conversation(tmp_path: Path) -> None:
    file = jsonl(tmp_path, {"messages": OPENAI}, {"messages": SHAREGPT})
    first, second = read_data(file, "jsonl", messages="messages", merge=False).examples
    assert talk(first) == talk(second)
    assert [turn.role for turn in talk(first).turns] == ["system", *("user", "assistant") * 2]
    assert first.references == ("In rivers.",)
    assert first.fields == {}


def test_a_conversation_in_any_table(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "look"}}]}
    used = [ASK, call, {"role": "tool", "content": "3"}, SAY]
    parquet.write_table(
        pyarrow.Table.from_pylist([{"talk": OPENAI}, {"talk": used}]), tmp_path / "x.parquet"
    )
    with (tmp_path / "x.csv").open("w", newline="") as handle:
        written = csv.writer(handle)
        written.writerows([["talk"], [json.dumps(OPENAI)], [json.dumps(used)]])
    plain = jsonl(tmp_path, {"talk": OPENAI}, {"talk": used})
    found = [
        [talk(e) for e in read_data(path, kind, messages="talk").examples]
        for path, kind in (
            (plain, "jsonl"),
            (tmp_path / "x.csv", "csv"),
            (tmp_path / "x.parquet", "parquet"),
        )
    ]
    assert found[0] == found[1] == found[2]


def test_names_of_roles_contents_in_parts_and_calls_of_old() -> None:
    parts = [{"type": "text", "text": "What "}, {"type": "text", "text": "now?"}]
    new = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": parts},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "1",
                    "type": "function",
                    "function": {"name": "look", "arguments": '{"at": "clock"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "1", "content": "noon"},
        {"role": "assistant", "content": "Noon.", "reasoning_content": "It is noon."},
    ]
    system, asked, called, told, said = conversation_of("x", "m", {"m": new}).turns
    assert (system.role, asked.content) == ("system", "What now?")
    assert called.text == (
        '<tool_call>\n{"name": "look", "arguments": {"at": "clock"}}\n</tool_call>'
    )
    assert told.others == {"tool_call_id": "1"}
    assert said.others == {"reasoning_content": "It is noon."}
    old = {"role": "assistant", "function_call": {"name": "look", "arguments": '{"at": "clock"}'}}
    shared = [
        {"from": "human", "value": "What now?"},
        {"from": "function_call", "value": "look"},
        {"from": "observation", "value": "noon"},
        {"from": "gpt", "value": "Noon."},
    ]
    before = conversation_of("x", "m", {"m": [ASK, old, {"role": "function", "content": "3"}, SAY]})
    assert before.turns[1].text == called.text
    roles = [turn.role for turn in conversation_of("x", "m", {"m": shared}).turns]
    assert roles == ["user", "assistant", "tool", "assistant"]


def test_a_weight_of_nothing_leaves_a_turn_untrained_and_unmeasured() -> None:
    given = [ASK, {**SAY, "weight": 0}, ASK, {**SAY, "weight": 1}]
    found = conversation_of("x", "m", {"m": given}, measured="each")
    assert found.answered == (3,)
    assert len(list(found.each_measured())) == 1


MISTAKES: dict[str, tuple[Any, str]] = {
    "missing": ({"text": "x"}, "field 'messages' is missing; expected a conversation"),
    "null": ({"messages": None}, "field 'messages' is empty"),
    "a text": ({"messages": "hello"}, "field 'messages': expected a list of messages, found 'he"),
    "an object": ({"messages": ASK}, "field 'messages': expected a list of messages, found {'ro"),
    "empty": ({"messages": []}, "field 'messages': is an empty list"),
    "no object": ({"messages": ["hi"]}, "message 1: expected an object such as .* found 'hi'"),
    "no role": ({"messages": [{"rol": "user"}]}, "message 1: field 'role' is missing.*'rol'"),
    "no content": ({"messages": [{"role": "user", "contents": "x"}]}, "'content': is missing.*'co"),
    "unknown role": ({"messages": [{**ASK, "role": "usr"}]}, "'usr' is no role.*mean 'user'"),
    "role of a number": ({"messages": [{**ASK, "role": 1}]}, "field 'role': 1 is no role"),
    "assistant first": ({"messages": [SAY]}, "'assistant' begins the conversation; expected sys"),
    "two in turn": (
        {"messages": [ASK, SAY, SAY]},
        "message 3, field 'role': 'assistant' follows a message of the assistant; expected user",
    ),
    "two questions": ({"messages": [ASK, ASK, SAY]}, "message 2.*'user' follows a message of the"),
    "system later": (
        {"messages": [ASK, SAY, {"role": "system", "content": "x"}]},
        "message 3, field 'role': 'system' follows a message of the assistant",
    ),
    "a tool that nobody called": (
        {"messages": [ASK, {"role": "tool", "content": "x"}]},
        "message 2, field 'role': 'tool' follows a message of the user; expected assistant",
    ),
    "content that is no text": (
        {"messages": [{"role": "user", "content": 3}]},
        "message 1, field 'content': expected a text, found 3",
    ),
    "a picture": (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "u"}]}]},
        "message 1, field 'content', part 1: is no text",
    ),
    "blank": ({"messages": [ASK, {**SAY, "content": " "}]}, "message 2, field 'content': is empty"),
    "no answer": ({"messages": [ASK]}, "field 'messages': a conversation without an answer"),
    "no trained answer": ({"messages": [ASK, {**SAY, "weight": 0}]}, "`weight` is 0 at every"),
    "weight": ({"messages": [ASK, {**SAY, "weight": 2}]}, "'weight': expected 0 or 1, found 2"),
    "calls": (
        {"messages": [ASK, {"role": "assistant", "tool_calls": {"name": "x"}}]},
        "message 2, field 'tool_calls': expected a list",
    ),
    "a call": (
        {"messages": [ASK, {"role": "assistant", "tool_calls": [{"function": {}}]}]},
        "field 'tool_calls', call 1: expected",
    ),
    "tools": ({"messages": [ASK, SAY], "tools": "x"}, "field 'tools': expected a list of tools"),
    "a tool": ({"messages": [ASK, SAY], "tools": ["x"]}, "field 'tools', tool 1: expected an obj"),
    "a ShareGPT value": ({"messages": [{"from": "human", "value": 1}]}, "field 'value': expected"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_bad_conversation_is_named_by_line(tmp_path: Path, name: str) -> None:
    row, message = MISTAKES[name]
    file = jsonl(tmp_path, {"messages": [ASK, SAY]}, row)
    with pytest.raises(DataError, match=message) as caught:
        read_data(file, "jsonl", messages="messages", tools="tools")
    assert str(caught.value).startswith(f"{file}, line 2")


def test_an_input_asks_something() -> None:
    asked = conversation_of("x", "m", {"m": [ASK]}, answered=False)
    again = conversation_of("x", "m", {"m": [ASK, SAY]}, answered=False)
    assert asked.open == again.open
    with pytest.raises(DataError, match=r"x, field 'm': asks nothing"):
        conversation_of("x", "m", {"m": OPENAI[:1]}, answered=False)


def test_one_turn_is_measured_or_each(tmp_path: Path) -> None:
    file = jsonl(tmp_path, {"messages": OPENAI, "id": 7})
    (last,) = read_data(file, "jsonl", messages="messages").examples
    assert last.references == ("In rivers.",)
    assert talk(last).answered == (2, 4)
    each = read_data(file, "jsonl", messages="messages", measured="each").examples
    assert [example.references for example in each] == [("An animal.",), ("In rivers.",)]
    assert [talk(example).answered for example in each] == [(2,), (4,)]
    assert [talk(example).open.turns[-1].content for example in each] == [
        "What is an otter?",
        "Where does it live?",
    ]
    assert merged(each) == each
    assert {example.fields["id"] for example in each} == {"7"}


def test_a_conversation_that_goes_on_after_its_last_answer_is_measured_there() -> None:
    (part,) = conversation_of("x", "m", {"m": [ASK, SAY, ASK]}).each_measured()
    assert len(part.turns) == 2


def test_conversations_with_the_same_beginning_are_not_parted(tmp_path: Path) -> None:
    rows = [
        {"messages": [{**ASK, "content": f"Why {i // 2}?"}, {**SAY, "content": f"So {i}."}]}
        for i in range(20)
    ]
    examples = read_data(jsonl(tmp_path, *rows), "jsonl", messages="messages", merge=False).examples
    train, held = hold_out(examples, 0.3, seed=1)
    assert len(train) + len(held) == 20
    asked = [{talk(example).asked for example in part} for part in (train, held)]
    assert asked[0].isdisjoint(asked[1])


def test_turns_are_counted(tmp_path: Path) -> None:
    file = jsonl(tmp_path, {"messages": OPENAI}, {"messages": [ASK, SAY]})
    lines = take_census(read_data(file, "jsonl", messages="messages", merge=False).examples)
    assert lines.lines("train")[0].startswith(
        "train: 2 examples with 3 turns of the assistant; inputs of 10 to"
    )
