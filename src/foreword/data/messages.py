"""Conversations: a column that holds a list of messages, as OpenAI's API or as ShareGPT writes it.

    {"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi."}]}
    {"conversations": [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Hi."}]}

A system message may stand first; then user and assistant take turns, and what a tool says follows
the assistant's call of it. `weight: 0` at a message of the assistant, as in OpenAI's files, leaves
it untrained. Other keys of a message, such as `tool_calls` and `reasoning_content`, are kept for
the chat template.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from foreword.common.json_text import check_depth, parse_json
from foreword.data.conversation import Conversation, Measured, Role, Turn
from foreword.data.fields import missing
from foreword.data.lines import show
from foreword.errors import DataError, did_you_mean

_OTHER_NAMES: dict[str, Role] = {
    "developer": "system",
    "human": "user",
    "gpt": "assistant",
    "function_call": "assistant",
    "function": "tool",
    "function_response": "tool",
    "observation": "tool",
}
ROLES: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    **_OTHER_NAMES,
}
"""What files call a role -> the role."""
_FOLLOWS: dict[Role, tuple[Role | None, ...]] = {
    "system": (None,),
    "user": (None, "system", "assistant"),
    "assistant": ("user", "tool"),
    "tool": ("assistant", "tool"),
}
"""Role -> the roles of the message before; None is the beginning."""
_KEYS = (("role", "content"), ("from", "value"))
_OWN_KEYS = frozenset({"role", "content", "from", "value", "weight", "function_call"})


def conversation_of(
    where: str,
    name: str,
    columns: Mapping[str, Any],
    *,
    tools: str | None = None,
    measured: Measured = "last",
    answered: bool = True,
) -> Conversation:
    """The conversation in a column of a row.

    Args:
        where: file and line, for messages.
        name: of the column.
        columns: the row.
        tools: the column with what the assistant may call; None: none has it.
        measured: which turns of the assistant are measured.
        answered: whether there must be an answer of the assistant to learn from; else the user must
            have asked something.

    Raises:
        DataError: it is no list of messages, a role is not known or out of order, a content is no
            text, or there is no answer, or nothing to answer.
    """
    if columns.get(name) is None:
        raise DataError(missing(where, name, columns, "a conversation, a list of messages"))
    place = f"{where}, field '{name}'" if where else f"field '{name}'"
    try:
        check_depth(columns[name])
    except ValueError as error:
        raise DataError(f"{place}: {error}") from error
    given = _listed(place, columns[name], "a list of messages")
    turns: list[Turn] = []
    for number, message in enumerate(given, 1):
        turns.append(_turn(f"{place}, message {number}", message, turns))
    conversation = Conversation(tuple(turns), _tools(where, tools, columns), measured)
    if answered:
        _check_answered(place, conversation)
    elif not conversation.open.turns or conversation.open.turns[-1].role == "system":
        raise DataError(f"{place}: asks nothing; expected a message of the user at its end")
    return conversation


def _check_answered(place: str, conversation: Conversation) -> None:
    if conversation.answered:
        return
    if any(turn.role == "assistant" for turn in conversation.turns):
        raise DataError(
            f"{place}: `weight` is 0 at every message of the assistant, so there is no answer to "
            "learn from; leave the row out"
        )
    raise DataError(f"{place}: a conversation without an answer; expected one of the assistant")


def _listed(place: str, value: Any, expected: str) -> Sequence[Any]:
    if isinstance(value, str):
        try:
            value = parse_json(value)
        except ValueError as error:
            raise DataError(f"{place}: expected {expected}, found {show(value)}") from error
    if not isinstance(value, list | tuple):
        raise DataError(f"{place}: expected {expected}, found {show(value)}")
    if not value:
        raise DataError(f"{place}: is an empty list; expected {expected}")
    return value


def _turn(place: str, message: Any, before: Sequence[Turn]) -> Turn:
    if not isinstance(message, Mapping):
        raise DataError(
            f"{place}: expected an object such as {{'role': 'user', 'content': '…'}}, found "
            f"{show(message)}"
        )
    kept = {key: value for key, value in message.items() if value is not None}
    who, what = next((keys for keys in _KEYS if keys[0] in kept), _KEYS[0])
    if who not in kept:
        known = [str(key) for key in kept]
        raise DataError(
            f"{place}: field '{who}' is missing; expected `role` and `content`, or ShareGPT's "
            f"`from` and `value`{did_you_mean(who, known)}"
        )
    role = _role(f"{place}, field '{who}'", kept[who], before)
    more = _more(place, kept)
    content = _content(f"{place}, field '{what}'", what, kept, optional="tool_calls" in more)
    if not content.strip() and role != "tool" and "tool_calls" not in more:
        raise DataError(f"{place}, field '{what}': is empty; expected a text")
    written = json.dumps(more, ensure_ascii=False) if more else ""
    return Turn(role, content, written, _trained(place, kept, role))


def _role(place: str, given: Any, before: Sequence[Turn]) -> Role:
    role = ROLES.get(given) if isinstance(given, str) else None
    if role is None:
        raise DataError(
            f"{place}: {show(given)} is no role; expected one of {', '.join(ROLES)}"
            f"{did_you_mean(given, ROLES) if isinstance(given, str) else ''}"
        )
    last = before[-1].role if before else None
    if last in _FOLLOWS[role]:
        return role
    if last is None:
        raise DataError(f"{place}: {show(given)} begins the conversation; expected system or user")
    expected = [name for name, allowed in _FOLLOWS.items() if last in allowed]
    raise DataError(
        f"{place}: {show(given)} follows a message of the {last}; expected {' or '.join(expected)}"
    )


def _content(place: str, what: str, message: Mapping[str, Any], *, optional: bool) -> str:
    if what not in message:
        if optional:
            return ""
        known = [str(key) for key in message]
        raise DataError(f"{place}: is missing; expected a text{did_you_mean(what, known)}")
    given = message[what]
    if isinstance(given, str):
        return given
    if isinstance(given, list) and given:
        return "".join(_part(f"{place}, part {i}", part) for i, part in enumerate(given, 1))
    raise DataError(f"{place}: expected a text, found {show(given)}")


def _part(place: str, part: Any) -> str:
    """The text of a part, as OpenAI's API has contents of several parts."""
    text = part.get("text") if isinstance(part, Mapping) else part
    if not isinstance(text, str):
        raise DataError(
            f"{place}: is no text, but texts alone are read; expected "
            f"{{'type': 'text', 'text': '…'}}, found {show(part)}"
        )
    return text


def _trained(place: str, message: Mapping[str, Any], role: Role) -> bool:
    weight = message.get("weight", 1)
    if isinstance(weight, bool) or weight not in (0, 1):
        raise DataError(f"{place}, field 'weight': expected 0 or 1, found {show(weight)}")
    return role != "assistant" or weight == 1


def _more(place: str, message: Mapping[str, Any]) -> dict[str, Any]:
    """The other keys of a message; calls of tools as OpenAI's API has them now, their arguments as
    an object, which is what chat templates take."""
    more = {key: _without_null(value) for key, value in message.items() if key not in _OWN_KEYS}
    calls = more.pop("tool_calls", None)
    if "function_call" in message:
        calls = [*(calls or ()), {"type": "function", "function": message["function_call"]}]
    if calls:
        if not isinstance(calls, list):
            raise DataError(f"{place}, field 'tool_calls': expected a list, found {show(calls)}")
        more["tool_calls"] = [
            _call(f"{place}, field 'tool_calls', call {i}", call) for i, call in enumerate(calls, 1)
        ]
    try:
        json.dumps(more, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise DataError(f"{place}: holds what is no JSON: {error}") from error
    return more


def _call(place: str, call: Any) -> dict[str, Any]:
    function = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise DataError(
            f"{place}: expected {{'function': {{'name': '…', 'arguments': …}}}}, found {show(call)}"
        )
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        with suppress(ValueError):  # a text that is no JSON stays the text that it is
            arguments = parse_json(arguments) if arguments.strip() else {}
    whole = {key: value for key, value in call.items() if key != "function"}
    whole = whole if "function" in call else {}
    return {"type": "function", **whole, "function": {**function, "arguments": arguments}}


def _tools(where: str, name: str | None, columns: Mapping[str, Any]) -> str:
    value = None if name is None else columns.get(name)
    if value is None or value == [] or value == "":
        return ""
    place = f"{where}, field '{name}'"
    listed = [_without_null(tool) for tool in _listed(place, value, "a list of tools")]
    for number, tool in enumerate(listed, 1):
        if not isinstance(tool, dict):
            raise DataError(f"{place}, tool {number}: expected an object, found {show(tool)}")
    return json.dumps(listed, ensure_ascii=False)


def _without_null(value: Any) -> Any:
    """The same without keys that hold nothing: Parquet gives each record the keys of all others."""
    if isinstance(value, Mapping):
        return {key: _without_null(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list | tuple):
        return [_without_null(inner) for inner in value]
    return value
