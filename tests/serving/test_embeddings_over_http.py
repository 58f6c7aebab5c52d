"""/v1/embeddings: vectors as `embed` gives them alone, by the `openai` client as it is."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
import torch
from asking import TEXTS
from running import BASE, Client, running

from conftest import make_backbone, saved_bert
from foreword.backbone import Backbone
from foreword.methods import HeadOnly
from foreword.serving import PromptStore
from foreword.session import LoadedPrompt
from stored_prompts import labels, prefix, soft, store, vectors, writes

NAMES = ("deep", "shallow", "slots")


@pytest.fixture(scope="module", params=["bert", "gpt2"])
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Backbone, dict[str, Path]]:
    """An encoder, or a decoder, in float32; prompts that give vectors, and others."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "bert":
        from transformers import BertModel

        backbone = saved_bert(folder / "base", BertModel, positions=64)
    else:
        backbone = make_backbone("gpt2", torch.float32)
    kinds = {
        "deep": (prefix(), vectors(second="of: {other}")),
        "shallow": (soft(), vectors(pooling="last", normalise=False)),
        "slots": (soft(3), vectors("{soft:2} {text} {soft:1}", "{other} {soft:3}")),
        "two": (prefix(2), vectors("{title}: {text}", "{other}")),
        "cuts": (prefix(2), vectors("{text:cut}", "{other}")),
        "head": (HeadOnly(name="head-only"), labels()),
    }
    if request.param == "gpt2":
        kinds["writer"] = (soft(), writes())
    return backbone, {
        name: store(folder / name, backbone, method, task, seed=number)
        for number, (name, (method, task)) in enumerate(kinds.items())
    }


@pytest.fixture(scope="module")
def client(world: Any) -> Iterator[Client]:
    backbone, folders = world
    with running(backbone, prompt=folders, rows=4, chunk=16) as found:
        yield found


@pytest.fixture(scope="module")
def prompts(world: Any) -> dict[str, LoadedPrompt]:
    backbone, folders = world
    kept = PromptStore(backbone)
    for name, folder in folders.items():
        kept.add(name, folder)
    return {name: kept.get(name) for name in folders}


@pytest.fixture(scope="module")
def api(client: Client) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=client.url, api_key="any", max_retries=0) as found:
        yield found


def close(found: Any, expected: Any) -> None:
    bound = 1e-5 * max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(np.array(found), np.array(expected), rtol=0, atol=bound)


def embedded(client: Client, model: str, **body: Any) -> Any:
    answer = client.ask("POST", "/v1/embeddings", {"model": model, **body})
    assert answer.status == 200, answer.content
    return answer.json


def refused(client: Client, model: str, **body: Any) -> str:
    answer = client.ask("POST", "/v1/embeddings", {"model": model, **body})
    assert answer.status == 400, answer.content
    assert answer.error["type"] == "invalid_request_error"
    message: str = answer.error["message"]
    return message


@pytest.mark.parametrize("name", NAMES)
def test_the_openai_client_gets_the_vectors_of_embed(
    api: openai.OpenAI, client: Client, prompts: dict[str, LoadedPrompt], name: str
) -> None:
    """By default it asks for base64 and reads it by itself."""
    expected = prompts[name].embed(TEXTS)
    for form in (openai.omit, "base64", "float"):
        answer = api.embeddings.create(
            model=name,
            input=list(TEXTS),
            **({} if form is openai.omit else {"encoding_format": form}),
        )
        assert (answer.object, answer.model) == ("list", name)
        assert [one.index for one in answer.data] == list(range(len(TEXTS)))
        rows: list[Any] = [one.embedding for one in answer.data]
        if form == "base64":
            rows = [np.frombuffer(base64.b64decode(row), "<f4") for row in rows]
        close(rows, expected)
    one = api.embeddings.create(
        model=name, input=TEXTS[0], dimensions=client.served.service.backbone.hidden_width
    )
    close(one.data[0].embedding, expected[0])


def test_prompts_mix_and_keep_their_order(
    api: openai.OpenAI, prompts: dict[str, LoadedPrompt], client: Client
) -> None:
    """Asked at the same time, each in inputs of several lengths."""
    expected = {name: prompts[name].embed(TEXTS) for name in NAMES}
    asked = [(name, order) for order in ((0, 1, 2, 3), (3, 1), (2,)) for name in NAMES] * 3

    def ask(one: tuple[str, tuple[int, ...]]) -> list[Any]:
        name, order = one
        answer = api.embeddings.create(model=name, input=[TEXTS[n] for n in order])
        return [row.embedding for row in sorted(answer.data, key=lambda row: row.index)]

    with ThreadPoolExecutor(8) as pool:
        for (name, order), found in zip(asked, pool.map(ask, asked), strict=True):
            close(found, expected[name][list(order)])
    assert client.served.engine.active == 0


def test_token_ids_are_read_as_they_are(
    client: Client, world: Any, prompts: dict[str, LoadedPrompt]
) -> None:
    tokens = world[0].tokens
    ids = [tokens.source(text) for text in TEXTS]
    expected = prompts["deep"].embed(TEXTS)
    several = embedded(client, "deep", input=ids)
    close([one["embedding"] for one in several["data"]], expected)
    (one,) = embedded(client, "deep", input=ids[1])["data"]
    close(one["embedding"], expected[1])
    assert several["usage"] == embedded(client, "deep", input=list(TEXTS))["usage"]


def test_usage_counts_what_was_read_without_virtual_tokens(client: Client, world: Any) -> None:
    tokens = world[0].tokens
    read = [len(tokens.source(text)) for text in TEXTS]
    usage = embedded(client, "deep", input=list(TEXTS))["usage"]
    assert usage == {"prompt_tokens": sum(read), "total_tokens": sum(read)}
    # words on both sides of slots are read apart, so the text itself is counted alone
    framed = len(tokens.filled(["so"])[0])
    assert embedded(client, "slots", input="so")["usage"]["total_tokens"] == framed


def test_the_other_side_and_fields(client: Client, prompts: dict[str, LoadedPrompt]) -> None:
    found = embedded(client, "deep", input=list(TEXTS), paired=True)["data"]
    expected = prompts["deep"].embed(TEXTS, paired=True)
    close([one["embedding"] for one in found], expected)
    assert np.abs(expected - prompts["deep"].embed(TEXTS)).max() > 1e-3
    fields = [{"title": "On", "text": text} for text in TEXTS[:2]]
    found = embedded(client, "two", fields=fields)["data"]
    close([one["embedding"] for one in found], prompts["two"].embed(fields))
    assert "has the fields title, text; give them by name" in refused(client, "two", input="so")


def test_a_text_that_is_cut_says_so(client: Client, prompts: dict[str, LoadedPrompt]) -> None:
    long = "so it goes " * 100
    short, cut = embedded(client, "cuts", input=["so", long])["data"]
    assert "truncated" not in short
    assert cut["truncated"] is True
    close(cut["embedding"], prompts["cuts"].embed([long])[0])


@pytest.mark.parametrize(
    ("model", "body", "said"),
    [
        ("deep", {}, "give one of `input` and `fields`"),
        ("deep", {"input": "a", "fields": {"text": "a"}}, "give one of"),
        ("deep", {"input": []}, "input: expected a text, texts, token ids"),
        ("deep", {"input": [1, "a"]}, "input: expected a text, texts, token ids"),
        ("deep", {"input": ["a"] * 2049}, "`input`: expected at most 2048 inputs"),
        ("deep", {"input": [[1]] * 2049}, "`input`: expected at most 2048 inputs"),
        ("deep", {"input": "a", "encoding_format": "int8"}, "encoding_format"),
        ("deep", {"input": "a", "dimensions": 3}, "dimensions: 3 is asked for, but the vectors"),
        ("deep", {"input": "a", "dimensions": 0}, "dimensions: 0 is asked for"),
        ("deep", {"input": "a", "dimension": 3}, "no such name (did you mean 'dimensions'?)"),
        ("deep", {"input": [10**9]}, "input: 1000000000 is no token of this backbone"),
        ("deep", {"input": [[5], [-1]]}, "input.1: -1 is no token of this backbone"),
        ("deep", {"input": [[5], [5] * 3000]}, "input.1: has 3000 tokens, but at most"),
        ("deep", {"input": ["so", "so " * 3000]}, "input.1: the input has"),
        ("deep", {"input": "\ud800"}, "half a character"),
        ("slots", {"input": [5]}, "takes no token ids; give a text"),
        ("head", {"input": "a"}, "use /v1/classify"),
    ],
    ids=lambda value: str(value)[:50] if isinstance(value, dict) else None,
)
def test_what_is_refused(client: Client, model: str, body: dict[str, Any], said: str) -> None:
    assert said in refused(client, model, **body)


def test_the_backbone_alone_gives_no_vectors(client: Client) -> None:
    assert "is the backbone, which gives no vectors by itself" in refused(client, BASE, input="a")
    classified = client.ask("POST", "/v1/classify", {"model": "deep", "input": "a"})
    assert (classified.status, "use /v1/embeddings" in classified.error["message"]) == (400, True)


def test_a_wrong_input_disturbs_nobody(
    client: Client, prompts: dict[str, LoadedPrompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests that are refused, and one that fails in the middle of a batch."""
    wrong = {"input": ["so", "so " * 3000]}
    readout = client.served.service.model("shallow").task.model.readout

    def fails(*_: Any) -> Any:
        raise RuntimeError("a row that cannot be read")

    monkeypatch.setattr(readout, "answers", fails)
    expected = {name: prompts[name].embed(TEXTS[1:3]) for name in ("deep", "slots")}

    def ask(number: int) -> tuple[int, Any]:
        name = ("deep", "slots", "shallow")[number % 3]
        if name == "shallow":
            body: dict[str, Any] = {"input": "a film"} if number % 2 else wrong
        else:
            body = {"input": list(TEXTS[1:3])}
        answer = client.ask("POST", "/v1/embeddings", {"model": name, **body})
        return answer.status, answer.json

    with ThreadPoolExecutor(12) as pool:
        for number, (status, answer) in enumerate(pool.map(ask, range(24))):
            name = ("deep", "slots", "shallow")[number % 3]
            if name == "shallow":
                assert status == (500 if number % 2 else 400)
            else:
                assert status == 200
                close([one["embedding"] for one in answer["data"]], expected[name])


def test_numbers_that_are_none_are_an_error(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prompt may be so large that nothing finite comes of it; JSON has no such numbers."""
    readout = client.served.service.model("shallow").task.model.readout
    monkeypatch.setattr(
        readout, "answers", lambda taken, _: [torch.full((3,), torch.nan) for _ in taken]
    )
    answer = client.ask("POST", "/v1/embeddings", {"model": "shallow", "input": "a"})
    assert (answer.status, answer.error["type"]) == (500, "server_error")


def test_models_metrics_and_the_schema(client: Client) -> None:
    described = client.ask("GET", "/v1/models/deep").json
    assert described["answers"] == "embeddings"
    assert described["fields"] == ["text"]
    assert described["dimensions"] == client.served.service.backbone.hidden_width
    assert "dimensions" not in client.ask("GET", "/v1/models/head").json

    def numbers() -> dict[str, float]:
        text = client.ask("GET", "/metrics").content.decode()
        lines = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in lines}

    before = numbers()
    tokens = embedded(client, "deep", input=["so", "a film"])["usage"]["total_tokens"]
    after = numbers()

    def grown(name: str) -> float:
        return after[name] - before.get(name, 0.0)

    assert grown('foreword_prompt_tokens_total{model="deep"}') == tokens
    assert grown('foreword_requests_total{model="deep",status="200"}') == 1
    assert grown("foreword_read_rows_total") == 2
    schema = client.ask("GET", "/openapi.json").json
    body = schema["paths"]["/v1/embeddings"]["post"]["requestBody"]["content"]["application/json"]
    assert body["schema"] == {"$ref": "#/components/schemas/EmbeddingRequest"}
    assert {"input", "encoding_format", "dimensions"} <= set(
        schema["components"]["schemas"]["EmbeddingRequest"]["properties"]
    )


def test_keys(world: Any) -> None:
    backbone, folders = world
    keys = [
        {"name": "a", "key": "tenant-key-a", "models": ["deep"]},
        {"name": "b", "key": "tenant-key-b", "requests_per_minute": 1},
    ]
    with running(backbone, prompt=folders, keys=keys, queue=2) as client:

        def ask(model: str, key: str | None, **body: Any) -> Any:
            given = {"model": model, "input": "so", **body}
            return client.ask("POST", "/v1/embeddings", given, key=key)

        assert ask("deep", None).status == 401
        assert ask("deep", "tenant-key-a").status == 200
        assert ask("shallow", "tenant-key-a").error["code"] == "model_not_allowed"
        assert ask("deep", "tenant-key-a", input=["so"] * 3).status == 400
        assert ask("nothing", "tenant-key-b").error["code"] == "model_not_found"
        assert ask("deep", "tenant-key-b").error["type"] == "rate_limit_error"
