"""Clients that people use, unmodified: the `openai` package, and what an OpenAPI schema makes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import schemathesis
from asking import TEXTS, decoder_world
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from running import BASE, Client, named, running

import client_program
from foreword.backbone import Backbone

World = tuple[Backbone, dict[str, Path]]
CHAT = (
    "{% for m in messages %}<{{ m.role }}> {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    backbone, folders = decoder_world(tmp_path_factory.mktemp("clients"), chat=CHAT)
    return backbone, named(folders)


@pytest.fixture(scope="module")
def client(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    backbone, folders = world
    keys = [{"name": "me", "key": "key-of-mine", "admin": True}]
    kept = tmp_path_factory.mktemp("kept")
    roots = [folders["deep"].parent]
    with running(
        backbone, prompt=folders, keys=keys, max_tokens=12, uploads=kept, roots=roots
    ) as found:
        yield found
    backbone.tokens.tokenizer.chat_template = None


@pytest.fixture(scope="module")
def api(client: Client) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=client.url, api_key="key-of-mine", max_retries=0) as found:
        yield found


def test_openai_completions(api: openai.OpenAI, client: Client) -> None:
    whole = api.completions.create(model="deep", prompt="so", max_tokens=6, temperature=0)
    expected = client.complete("deep", prompt="so", max_tokens=6, temperature=0, key="key-of-mine")
    assert whole.choices[0].text == expected.json["choices"][0]["text"]
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 6
    pieces = api.completions.create(
        model="deep",
        prompt="so",
        max_tokens=6,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    *parts, last = list(pieces)
    assert "".join(part.choices[0].text for part in parts) == whole.choices[0].text
    assert last.usage == whole.usage
    several = api.completions.create(
        model="soft", prompt=["so", "a film"], n=2, seed=5, temperature=2, logprobs=3, echo=True
    )
    assert [choice.index for choice in several.choices] == [0, 1, 2, 3]
    logs = several.choices[0].logprobs
    assert logs is not None
    assert logs.token_logprobs is not None
    assert logs.token_logprobs[0] is None
    fields = api.completions.create(
        model="deep", prompt=None, extra_body={"fields": {"text": "so"}}, temperature=0
    )
    assert fields.choices[0].text.startswith(whole.choices[0].text[:3])


def test_a_program_that_asks_vllm_too(client: Client) -> None:
    """What `plugins/foreword-vllm/tests/engine/test_server.py` runs."""
    found = client_program.run(client.url, "key-of-mine", "deep", "deep", list(TEXTS[:3]))
    expected = [client.texts("deep", prompt=text, key="key-of-mine") for text in TEXTS[:3]]
    assert [[text] for text in found["texts"]] == [[text] for text in found["listed"]] == expected
    assert found["streamed"] == found["texts"][0]
    assert found["texts"][0].startswith(found["short"])
    assert len(set(found["texts"])) > 1
    assert found["stranger"] == "refused"
    assert found["chat"]


def test_openai_chat(api: openai.OpenAI) -> None:
    messages: Any = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]
    given: Any = {"model": "deep", "messages": messages, "max_completion_tokens": 6}
    whole = api.chat.completions.create(**given, temperature=0, logprobs=True, top_logprobs=2)
    (choice,) = whole.choices
    assert choice.message.role == "assistant"
    assert choice.message.content
    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    assert len(choice.logprobs.content) == 6
    parts = list(api.chat.completions.create(**given, temperature=0, stream=True))
    text = "".join(part.choices[0].delta.content or "" for part in parts)
    assert text == choice.message.content
    assert parts[-1].choices[0].finish_reason == "length"


def test_openai_models_and_errors(api: openai.OpenAI, client: Client) -> None:
    assert {one.id for one in api.models.list()} >= {BASE, "deep", "head"}
    assert api.models.retrieve("deep").owned_by == "foreword"
    with pytest.raises(openai.NotFoundError, match="there is no 'nobody' here"):
        api.completions.create(model="nobody", prompt="so")
    with pytest.raises(openai.BadRequestError, match="temperature"):
        api.completions.create(model="deep", prompt="so", temperature=-1)
    with (
        openai.OpenAI(base_url=client.url, api_key="wrong-key", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError),
    ):
        stranger.models.list()


def asked_of(client: Client, path: str, method: str, examples: int) -> None:
    """Requests that the schema allows, and some that it does not: no answer is a failure."""
    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{client.port}/openapi.json")
    operation = schema[path][method]
    modes = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
    cases = st.one_of(*(operation.as_strategy(generation_mode=mode) for mode in modes))
    names = (BASE, "deep", "soft", "slots", "head", "words", "vectors", "other-vectors")

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases, name=st.sampled_from((None, *names)))
    def ask(case: Any, name: str | None) -> None:
        if name is not None and isinstance(case.body, dict) and "model" in case.body:
            case.body["model"] = name
        if name is not None and isinstance(case.body, dict) and "folder" in case.body:
            case.body["folder"] = str(client.served.store.registered("deep").folder)
        answer = case.call(headers={"Authorization": "Bearer key-of-mine"}, timeout=60)
        assert answer.status_code < 500, (case.body, answer.text)
        if answer.status_code >= 400:
            assert set(answer.json()) == {"error"}

    ask()


OPERATIONS = (
    ("/v1/completions", "POST"),
    ("/v1/chat/completions", "POST"),
    ("/v1/classify", "POST"),
    ("/v1/embeddings", "POST"),
    ("/v1/prompts", "POST"),
    ("/v1/prompts", "GET"),
    ("/v1/prompts/{name}", "DELETE"),
    ("/v1/models/{name}", "GET"),
    ("/v1/models", "GET"),
    ("/metrics", "GET"),
    ("/health", "GET"),
    ("/ready", "GET"),
)


def test_every_address_is_asked(client: Client) -> None:
    paths = client.ask("GET", "/openapi.json").json["paths"]
    known = {(path, method.upper()) for path, methods in paths.items() for method in methods}
    assert known == set(OPERATIONS)


@pytest.mark.slow
@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_nothing_that_is_asked_makes_a_server_fail(client: Client, path: str, method: str) -> None:
    asked_of(client, path, method, 25)


@pytest.mark.soak
@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_very_much_that_is_asked_makes_no_server_fail(
    client: Client, path: str, method: str
) -> None:
    asked_of(client, path, method, 1500)
