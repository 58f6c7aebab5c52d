"""What a client asks, as vLLM's server takes it."""

from __future__ import annotations

from typing import Any

import pytest

from exported import write
from foreword_vllm import Prompt, read_prompt
from foreword_vllm.requests import (
    Row,
    Wrong,
    answer_tokens,
    check_room,
    messages_of,
    refuse,
    rewritten,
    rows_of,
)

CHAT = [
    {"role": "system", "content": ["Be short."]},
    {"role": "user", "content": [{"field": "text"}]},
]


@pytest.fixture
def prompt(tmp_path) -> Prompt:
    write(tmp_path, "birds")
    return read_prompt(tmp_path / "birds")


@pytest.fixture
def pair(tmp_path) -> Prompt:
    write(tmp_path, "pair", input=[{"field": "a"}, "\n", {"field": "b"}])
    return read_prompt(tmp_path / "pair")


@pytest.fixture
def chat(tmp_path) -> Prompt:
    write(tmp_path, "chat", input=CHAT)
    return read_prompt(tmp_path / "chat")


GIVEN: list[tuple[dict[str, Any], list[Row]]] = [
    ({"prompt": "x"}, [Row(text="x ->")]),
    ({"prompt": ["x", "y"]}, [Row(text="x ->"), Row(text="y ->")]),
    ({"prompt": [3, 4]}, [Row(tokens=[3, 4])]),
    ({"prompt": [[3], "x", [4, 5]]}, [Row(tokens=[3]), Row(text="x ->"), Row(tokens=[4, 5])]),
    ({"fields": {"record": "x"}}, [Row(text="x ->")]),
    ({"fields": [{"record": "x"}, {"record": ""}]}, [Row(text="x ->"), Row(text=" ->")]),
    ({"fields": {"record": {"a": "x", "b": "y"}}}, [Row(text="a : x | b : y ->")]),
]


@pytest.mark.parametrize(("body", "rows"), GIVEN)
def test_inputs_are_put_into_the_template(body, rows, prompt) -> None:
    assert rows_of(body, prompt) == rows


def test_several_fields_come_by_name(pair) -> None:
    assert rows_of({"fields": {"a": "1", "b": "2"}}, pair) == [Row(text="1\n2")]
    with pytest.raises(Wrong, match="has the fields a, b; give them by name"):
        rows_of({"prompt": "x"}, pair)


def test_a_blank_that_the_tokenizer_sets_is_left_out(tmp_path) -> None:
    write(tmp_path, "birds", tokens={"leading": [], "drops_blank": True})
    prompt = read_prompt(tmp_path / "birds")
    rows = rows_of({"prompt": [" x", "  x", "x"]}, prompt)
    assert [row.text for row in rows] == ["x ->", " x ->", "x ->"]


def test_a_completion_of_a_chat_prompt_has_its_messages(chat) -> None:
    (row,) = rows_of({"prompt": "hello"}, chat)
    assert row.messages == [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "hello"},
    ]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "give either"),
    ({"prompt": "x", "fields": {"record": "x"}}, "give either"),
    ({"prompt": []}, "empty list"),
    ({"prompt": 5}, "expected a text"),
    ({"prompt": {"record": "x"}}, "expected a text"),
    ({"prompt": [None]}, "expected texts"),
    ({"prompt": [[True]]}, "expected texts"),
    ({"prompt": [3, "x"]}, "expected texts"),
    ({"fields": "x"}, "expected texts by name"),
    ({"fields": {"record": 3}}, "'record' is 3, expected a text"),
    ({"fields": {"record": {"a": 3}}}, "expected a text or a record"),
    ({"fields": {}}, "'record' is missing"),
    ({"fields": {"record": "x", "more": "y"}}, "no 'more'"),
    ({"fields": []}, "empty list"),
    ({"prompt": "x", "add_special_tokens": True}, "add_special_tokens"),
]


@pytest.mark.parametrize(("body", "why"), WRONG)
def test_other_inputs_are_refused(body, why, prompt) -> None:
    with pytest.raises(Wrong, match=why):
        rows_of(body, prompt)


REFUSED: list[dict[str, Any]] = [
    {"echo": True},
    {"prompt_logprobs": 0},
    {"prompt_logprobs": 3},
    {"prompt_embeds": "abc"},
    {"use_beam_search": True},
    {"truncate_prompt_tokens": 5},
    {"truncate_prompt_tokens": -1},
    {"suffix": "x"},
]


@pytest.mark.parametrize("body", REFUSED)
def test_what_cannot_be_served_is_refused(body, prompt) -> None:
    with pytest.raises(Wrong, match=f"^{next(iter(body))}: is not served"):
        refuse(body, prompt)


def test_what_asks_for_nothing_of_it_is_not(prompt) -> None:
    refuse({"echo": False, "prompt_logprobs": None, "use_beam_search": False}, prompt)


def test_settings_are_the_prompts_where_the_request_has_none(prompt) -> None:
    made = rewritten({"model": "birds", "prompt": "x", "temperature": None}, prompt, "base")
    assert made["model"] == "base"
    assert (made["temperature"], made["max_tokens"], made["repetition_penalty"]) == (0.0, 9, 1.0)
    assert (made["min_p"], made["presence_penalty"], made["stop"]) == (0.0, 0.0, [])
    named = {"foreword": "birds", "foreword_sha256": prompt.sha256}
    assert made["kv_transfer_params"] == named
    own = {"temperature": 0.7, "max_tokens": 3, "stop": "x", "n": 2, "cache_salt": "s"}
    made = rewritten({"model": "birds", "fields": {}, **own}, prompt, "base")
    assert own.items() <= made.items()
    assert "fields" not in made
    made = rewritten({"max_completion_tokens": 4}, prompt, "base")
    assert (made["max_completion_tokens"], "max_tokens" in made) == (4, False)


def test_chats_are_taken_as_they_are(prompt, chat) -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "x"}]}]
    assert messages_of({"messages": messages}, prompt) == messages
    assert messages_of({"fields": {"text": "x"}}, chat)[1] == {"role": "user", "content": "x"}
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]
    for body, why in (
        ({"messages": image}, "'image_url'"),
        ({}, "give either"),
        ({"fields": {"record": "x"}}, "was trained on plain text"),
        ({"messages": "x"}, "expected a list"),
    ):
        with pytest.raises(Wrong, match=why):
            messages_of(body, prompt)


def test_options_of_the_chat_template_are_the_prompts(tmp_path) -> None:
    write(tmp_path, "chat", input=CHAT, chat_options={"thinking": False, "day": "Monday"})
    prompt = read_prompt(tmp_path / "chat")
    asked = {"messages": [], "chat_template_kwargs": {"day": "Friday"}}
    made = rewritten(asked, prompt, "base")
    assert made["chat_template_kwargs"] == {"thinking": False, "day": "Friday"}
    assert "chat_template_kwargs" not in rewritten({"prompt": "x"}, prompt, "base")


def test_room_counts_virtual_tokens_text_and_answer(prompt) -> None:
    check_room(prompt, 20, 7, 32)
    with pytest.raises(Wrong, match=r"takes 5; the input has 20, which leaves 7 for the answer"):
        check_room(prompt, 20, 8, 32)
    with pytest.raises(Wrong, match="has no token"):
        check_room(prompt, 0, 8, 32)


def test_answers_have_a_length(prompt) -> None:
    assert answer_tokens({}, prompt) == 9
    assert answer_tokens({"max_tokens": 3}, prompt) == 3
    assert answer_tokens({"max_tokens": 3, "max_completion_tokens": 4}, prompt) == 4
    for value in (0, -1, True, "5", 2.5):
        with pytest.raises(Wrong, match="expected a number from 1"):
            answer_tokens({"max_tokens": value}, prompt)
