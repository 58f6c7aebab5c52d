"""What a client asks of a prompt, as vLLM's own server takes it. Knows nothing of HTTP.

A prompt's template, tokens and decoding settings are its own; what a request says of itself goes
before them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from foreword_vllm.prompts import Prompt
from foreword_vllm.scheduling import FIELD, FIELD_HASH
from foreword_vllm.templates import Field, InputError

RESERVED = ("kv_transfer_params", "ec_transfer_params")
"""Fields by which a request would choose a prompt itself, past its name."""
_PLAIN = {"min_p": 0.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
"""What a checkpoint's generation_config.json shall not set."""
_REFUSED = {
    "echo": "the input is not written again",
    "prompt_logprobs": "vLLM reads an input without its prompt to tell its log-probabilities",
    "prompt_embeds": "a prompt stands before tokens",
    "use_beam_search": "beams are requests of their own in vLLM, without the prompt",
    "truncate_prompt_tokens": "the template would be cut; shorten the field",
    "suffix": "nothing stands after the text",
}


class Wrong(ValueError):
    """A request that is answered with 400, and why."""


@dataclass(frozen=True)
class Row:
    """One input of a request: a text with the tokens before it, messages, or tokens as they are."""

    text: str | None = None
    messages: list[dict[str, str]] | None = None
    tokens: list[int] | None = None


def refuse(body: Mapping[str, Any], prompt: Prompt) -> None:
    """Raise Wrong for what no request with a prompt may ask."""
    for name, reason in _REFUSED.items():
        if body.get(name):
            raise Wrong(f"{name}: is not served with the prompt '{prompt.name}': {reason}")
    if body.get("prompt_logprobs") is not None:
        raise Wrong(f"prompt_logprobs: is not served: {_REFUSED['prompt_logprobs']}")


def rows_of(body: Mapping[str, Any], prompt: Prompt) -> list[Row]:
    """The inputs of a completion.

    `prompt` is a text for the template's only field, tokens that are taken as they are, or a list
    of either; `fields` are the template's fields by name, or a list of such.

    Raises:
        Wrong: there is neither, or both, or they do not fit the template.
    """
    given, fields = body.get("prompt"), body.get("fields")
    if (given is None) == (fields is None):
        raise Wrong('prompt: give either "prompt" or "fields"')
    if body.get("add_special_tokens") is not None:
        raise Wrong("add_special_tokens: the prompt's own rule sets them; leave the field out")
    try:
        if fields is not None:
            many = fields if isinstance(fields, list) else [fields]
            rows = [_rendered(prompt, one) for one in many]
        elif isinstance(given, str):
            rows = [_rendered(prompt, prompt.input.only(given))]
        elif isinstance(given, list) and _are_tokens(given):
            rows = [Row(tokens=given)]
        elif isinstance(given, list):
            rows = [
                Row(tokens=one)
                if isinstance(one, list) and _are_tokens(one)
                else _rendered(prompt, prompt.input.only(_text(one)))
                for one in given
            ]
        else:
            raise Wrong(f"prompt: is {given!r:.60}, expected a text, tokens, or a list of them")
    except InputError as error:
        raise Wrong(str(error)) from error
    if not rows:
        raise Wrong("prompt: is an empty list")
    return rows


def sample_of(prompt: Prompt) -> Row:
    """The input whose tokens the prompt's statement holds."""
    return _rendered(prompt, prompt.sample[0])


def messages_of(body: Mapping[str, Any], prompt: Prompt) -> list[Any]:
    """The messages of a chat: as they are given, or the prompt's own around `fields`.

    Raises:
        Wrong: there are neither, or both, or they hold something else than text.
    """
    given, fields = body.get("messages"), body.get("fields")
    if (given is None) == (fields is None):
        raise Wrong('messages: give either "messages" or "fields"')
    if fields is not None:
        if not prompt.input.is_chat:
            raise Wrong(
                f"fields: '{prompt.name}' was trained on plain text; use /v1/completions, or give "
                '"messages"'
            )
        try:
            return list(prompt.input.messages(_mapping(fields)))
        except InputError as error:
            raise Wrong(str(error)) from error
    if not isinstance(given, list):
        raise Wrong(f"messages: is {given!r:.60}, expected a list")
    for message in given:
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else ():
            if isinstance(part, dict) and part.get("type", "text") != "text":
                raise Wrong(f"messages: holds {part['type']!r:.40}; a prompt is served with text")
    return given


def check_room(prompt: Prompt, tokens: int, answer: int, context: int) -> None:
    """Raise Wrong where virtual tokens, text and answer are longer than the context."""
    if tokens < 1:
        raise Wrong("prompt: the input has no token")
    if prompt.length + tokens + answer > context:
        raise Wrong(
            f"max_tokens: the model's context has {context} tokens, of which the prompt "
            f"'{prompt.name}' takes {prompt.length}; the input has {tokens}, which leaves "
            f"{max(0, context - prompt.length - tokens)} for the answer, and {answer} are asked "
            "for; shorten the input, or lower max_tokens"
        )


def answer_tokens(body: Mapping[str, Any], prompt: Prompt) -> int:
    """How long an answer may become."""
    for name in ("max_completion_tokens", "max_tokens"):
        value = body.get(name)
        if value is not None:
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise Wrong(f"{name}: is {value!r:.40}, expected a number from 1")
            return value
    return int(prompt.decoding["max_tokens"])


def rewritten(body: Mapping[str, Any], prompt: Prompt, served: str) -> dict[str, Any]:
    """A request for vLLM's server: the base model by its name, the prompt beside it, and the
    prompt's settings wherever the request has none."""
    settings = {**_PLAIN, **prompt.decoding, "max_tokens": answer_tokens(body, prompt)}
    given = {name: value for name, value in body.items() if value is not None}
    given.pop("fields", None)
    if "max_completion_tokens" in given:
        settings.pop("max_tokens")
    if prompt.chat_options and "messages" in given:
        own = given.get("chat_template_kwargs") or {}
        given["chat_template_kwargs"] = {**prompt.chat_options, **own}
    return {
        **settings,
        **given,
        "model": served,
        "kv_transfer_params": {FIELD: prompt.name, FIELD_HASH: prompt.sha256},
    }


def _rendered(prompt: Prompt, fields: Any) -> Row:
    values = _mapping(fields)
    if prompt.input.is_chat:
        return Row(messages=prompt.input.messages(values))
    text = prompt.input.text(values)
    return Row(text=text[1:] if prompt.drops_blank and text[:1] == " " else text)


def _mapping(fields: Any) -> Mapping[str, Field]:
    if not isinstance(fields, Mapping):
        raise Wrong(f"fields: is {fields!r:.60}, expected texts by name")
    return fields


def _text(given: Any) -> str:
    if not isinstance(given, str):
        raise Wrong(f"prompt: holds {given!r:.60}, expected texts, or lists of tokens")
    return given


def _are_tokens(given: list[Any]) -> bool:
    return bool(given) and all(isinstance(one, int) and not isinstance(one, bool) for one in given)
