"""A program of a user, with the `openai` package: the same lines ask `foreword serve`, and vLLM by
the plug-in (`tests/serving/test_clients.py`, `plugins/foreword-vllm/tests/engine/test_server.py`).

    python tests/client_program.py http://127.0.0.1:8000/v1 KEY PROMPT CHAT TEXT TEXT…
"""

from __future__ import annotations

import json
import sys
from typing import Any

import openai


def run(address: str, key: str, prompt: str, chat: str, texts: list[str]) -> dict[str, Any]:
    """Ask in every way that both servers answer.

    Args:
        address: of the API.
        key: of it.
        prompt: its name, a model's to the server; the template has one field.
        chat: another one, which messages are put behind.
        texts: two or more different ones.

    Returns:
        What was answered, by how it was asked for.
    """
    client = openai.OpenAI(base_url=address, api_key=key, max_retries=0)
    create: Any = client.completions.create
    found: dict[str, Any] = {"models": sorted(model.id for model in client.models.list())}
    assert client.models.retrieve(prompt).id == prompt

    plain = [create(model=prompt, prompt=text) for text in texts]  # settings are the prompt's own
    found["texts"] = [answer.choices[0].text for answer in plain]
    found["tokens"] = [answer.usage.completion_tokens for answer in plain]
    listed = create(model=prompt, prompt=texts)
    found["listed"] = [choice.text for choice in listed.choices]
    assert listed.usage.prompt_tokens == sum(one.usage.prompt_tokens for one in plain)
    options = {"include_usage": True}
    *parts, last = create(model=prompt, prompt=texts[0], stream=True, stream_options=options)
    found["streamed"] = "".join(part.choices[0].text for part in parts)
    assert last.usage.completion_tokens == found["tokens"][0]

    short = create(model=prompt, prompt=texts[0], max_tokens=2, temperature=0, logprobs=2)
    assert short.choices[0].finish_reason == "length"
    assert len(short.choices[0].logprobs.token_logprobs) == 2
    found["short"] = short.choices[0].text
    drawn = [
        [choice.text for choice in create(model=prompt, prompt=texts[0], n=3, **how).choices]
        for how in ({"temperature": 1.0, "seed": 5, "max_tokens": 6},) * 2
    ]
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) > 1
    stop = found["texts"][0].strip()[1]
    cut = create(model=prompt, prompt=texts[0], stop=[stop])
    assert cut.choices[0].finish_reason == "stop"
    assert stop not in cut.choices[0].text

    messages: Any = [
        {"role": "system", "content": "Say what it is."},
        {"role": "user", "content": texts[0]},
    ]
    whole = client.chat.completions.create(model=chat, messages=messages, temperature=0)
    pieces = client.chat.completions.create(
        model=chat, messages=messages, temperature=0, stream=True
    )
    found["chat"] = whole.choices[0].message.content
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == found["chat"]

    for wrong, kind in (
        ({"model": "nobody", "prompt": "x"}, openai.NotFoundError),
        ({"model": prompt, "prompt": "x", "temperature": -1}, openai.BadRequestError),
        ({"model": prompt, "prompt": "x", "max_tokens": 10**6}, openai.BadRequestError),
    ):
        try:
            create(**wrong)
        except kind:
            continue
        else:
            raise AssertionError(f"{wrong} was answered")
    stranger = openai.OpenAI(base_url=address, api_key="another-key", max_retries=0)
    try:
        stranger.completions.create(model=prompt, prompt="x")
    except openai.AuthenticationError:
        found["stranger"] = "refused"
    return found


if __name__ == "__main__":
    print(json.dumps(run(*sys.argv[1:5], sys.argv[5:]), indent=2))
