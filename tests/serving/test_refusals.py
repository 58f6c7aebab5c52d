"""What a server refuses: bodies, models, keys, too much at a time. Each in OpenAI's form."""

from __future__ import annotations

import hashlib
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from asking import decoder_world
from running import BASE, Client, named, running

from foreword.backbone import Backbone

WORD = {"model": "soft", "prompt": "so"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Backbone, dict[str, Path]]:
    backbone, folders = decoder_world(tmp_path_factory.mktemp("refusing"))
    return backbone, named(folders)


@pytest.fixture(scope="module")
def client(world: Any) -> Iterator[Client]:
    backbone, folders = world
    with running(backbone, prompt=folders, max_tokens=100, body=100_000) as found:
        yield found


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({"model": "soft"}, None, "give one of `prompt` and `fields`"),
        ({"prompt": "so"}, "model", "model: is missing"),
        ({**WORD, "fields": {"text": "so"}}, None, "give one of"),
        ({**WORD, "temprature": 1}, "temprature", "no such name (did you mean 'temperature'?)"),
        ({**WORD, "temperature": -1}, "temperature", "must be at least 0, found -1"),
        ({**WORD, "temperature": "hot"}, "temperature", "expected a number, found 'hot'"),
        ({**WORD, "temperature": True}, "temperature", "expected a number, found true"),
        ({**WORD, "top_p": 0}, "top_p", "must be more than 0"),
        ({**WORD, "top_k": -2}, "top_k", "must be at least -1"),
        ({**WORD, "max_tokens": -1}, "max_tokens", "must be at least 0"),
        ({**WORD, "max_tokens": 0}, None, "tells nothing without `echo: true`"),
        ({**WORD, "max_tokens": 101}, "max_tokens", "101 is more than the 100"),
        ({**WORD, "n": 0}, "n", "must be at least 1"),
        ({**WORD, "n": 129}, "n", "must be at most 128"),
        ({**WORD, "stop": ""}, None, "a stop word must not be empty"),
        ({**WORD, "stop": ["a"] * 17}, "stop", "at most 16 items"),
        ({**WORD, "seed": 2**63}, "seed", "seed"),
        ({**WORD, "seed": 1.5}, "seed", "expected a whole number"),
        ({**WORD, "logprobs": 21}, "logprobs", "must be at most 20"),
        ({**WORD, "presence_penalty": 0.5}, None, "`presence_penalty` is not supported"),
        ({**WORD, "logit_bias": {"5": 1}}, None, "`logit_bias` is not supported"),
        ({**WORD, "best_of": 3}, None, "`best_of` is not supported"),
        ({**WORD, "suffix": "end"}, None, "`suffix` is not supported"),
        ({**WORD, "stream_options": {}}, None, "`stream_options` is for `stream: true`"),
        ({"model": "soft", "prompt": []}, "prompt", "expected a text, texts, token ids"),
        ({"model": "soft", "prompt": [[]]}, "prompt", "expected a text, texts, token ids"),
        ({"model": "soft", "prompt": [1, "a"]}, "prompt", "expected a text, texts, token ids"),
        ({"model": "soft", "prompt": [True]}, "prompt", "expected a text, texts, token ids"),
        ({"model": "soft", "prompt": {"a": 1}}, "prompt", "found a mapping"),
        ({"model": "soft", "prompt": [8192]}, "prompt", "8192 is no token of this backbone"),
        ({"model": "soft", "prompt": [-1]}, "prompt", "-1 is no token of this backbone"),
        ({"model": "soft", "prompt": [10**30]}, "prompt", "is no token of this backbone"),
        ({"model": "slots", "prompt": [5]}, "prompt", "takes no token ids; give a text"),
        ({"model": BASE, "prompt": ""}, "prompt", "is empty"),
        ({"model": "soft", "prompt": [5] * 300}, "prompt", "has 300 tokens"),
        ({"model": "soft", "prompt": "so " * 300}, "prompt", "context leaves"),
        ({"model": "soft", "prompt": ["so", "so " * 300]}, "prompt", "prompt.1: the input has"),
        ({"model": "soft", "fields": {"title": "x"}}, "fields", "text"),
        ({"model": "soft", "fields": {"text": None}}, "fields", "is null; expected a text"),
        ({"model": "soft", "fields": {"text": "\ud800"}}, "fields", "half a character"),
        ({"model": "soft", "prompt": "\ud800"}, "prompt", "half a character"),
        ({"model": "head", "prompt": "so"}, "model", "use /v1/classify"),
        ({"model": "slots", "prompt": "so", "echo": True, "logprobs": 0}, "echo", "tells no log"),
        ([], None, "expected a mapping"),
        ("soft", None, "expected a mapping"),
    ],
    ids=lambda value: str(value)[:60] if not isinstance(value, str) else None,
)
def test_wrong_completions(client: Client, body: Any, param: str | None, message: str) -> None:
    answer = client.ask("POST", "/v1/completions", body)
    assert answer.status == 400, answer.content
    assert message in answer.error["message"]
    assert answer.error["param"] == param
    assert answer.error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/v1/classify", {"model": "soft", "input": "so"}, "has no head; use /v1/completions"),
        ("/v1/embeddings", {"model": "soft", "input": "so"}, "has no head; use /v1/completions"),
        ("/v1/classify", {"model": BASE, "input": "so"}, "writes texts and has no head"),
        ("/v1/classify", {"model": "head"}, "give one of `input` and `fields`"),
        ("/v1/classify", {"model": "head", "input": []}, "at least 1 item"),
        ("/v1/classify", {"model": "head", "input": "so " * 300}, "context leaves"),
        ("/v1/chat/completions", {"model": "soft", "messages": []}, "at least 1 item"),
        (
            "/v1/chat/completions",
            {"model": "soft", "messages": [{"role": "robot", "content": "hi"}]},
            "'robot' is not known",
        ),
        (
            "/v1/chat/completions",
            {"model": "soft", "messages": [{"role": "user", "content": "hi"}], "tools": [{}]},
            "`tools` is not supported",
        ),
        (
            "/v1/chat/completions",
            {"model": "soft", "messages": [{"role": "user", "content": "hi"}], "top_logprobs": 2},
            "`top_logprobs` is for `logprobs: true`",
        ),
    ],
)
def test_other_wrong_requests(client: Client, path: str, body: Any, message: str) -> None:
    answer = client.ask("POST", path, body)
    assert answer.status == 400, answer.content
    assert message in answer.error["message"]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "no JSON that can be read"),
        (b"{", "no JSON that can be read"),
        (b"\xff", "no JSON that can be read"),
        (b'{"model": "soft", "prompt": "so", "temperature": NaN}', "temperature"),
        (b"[" * 100_000, "no JSON that can be read"),
        (b'{"fields": ' + b'{"a": ' * 90 + b"1" + b"}" * 91, "nested more than 64 deep"),
        (b"1" * 5000, "no JSON that can be read"),
    ],
)
def test_bodies_that_are_no_json(client: Client, raw: bytes, message: str) -> None:
    answer = client.ask("POST", "/v1/completions", raw=raw)
    assert answer.status == 400
    assert message in answer.error["message"]


def test_addresses_and_methods_that_there_are_not(client: Client) -> None:
    assert client.ask("GET", "/v1/nothing").status == 404
    assert client.ask("GET", "/v1/nothing").error["type"] == "invalid_request_error"
    answer = client.ask("GET", "/v1/completions")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")
    assert answer.error["message"].startswith("GET /v1/completions")


def test_models_that_there_are_not(client: Client) -> None:
    for name in ("sof", "../etc/passwd", "soft\0", "\u202e", "a" * 512):
        answer = client.complete(name, prompt="so")
        assert (answer.status, answer.error["code"]) == (404, "model_not_found")
    assert client.complete("a" * 513, prompt="so").status == 400


def test_bodies_that_are_too_large(client: Client) -> None:
    answer = client.complete("soft", prompt="x" * 100_001)
    assert answer.status == 413
    assert "may have 100,000 bytes" in answer.error["message"]
    lying = client.ask(
        "POST", "/v1/completions", raw=b"{}", headers={"Content-Length": "999999999999"}
    )
    assert lying.status == 413


def test_a_body_in_pieces_is_bounded_too(client: Client) -> None:
    """Where no length is stated."""
    piece = b"400\r\n" + b"x" * 1024 + b"\r\n"
    with socket.create_connection(("127.0.0.1", client.port), timeout=30) as line:
        line.sendall(
            b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        try:
            for _ in range(200):
                line.sendall(piece)
        except OSError:
            pass  # it was refused before the end
        assert line.recv(12) == b"HTTP/1.1 413"


KEYS = [
    {"name": "boss", "key": "boss-key-1", "admin": True},
    {
        "name": "a",
        "sha256": hashlib.sha256(b"tenant-key-a").hexdigest(),
        "models": ["soft", "other-*"],
        "max_tokens": 4,
    },
    {"name": "b", "key": "tenant-key-b", "models": ["deep"], "requests_per_minute": 3},
    {"name": "c", "key": "tenant-key-c", "concurrent": 1},
]


@pytest.fixture(scope="module")
def locked(world: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    backbone, folders = world
    with running(
        backbone, prompt=folders, keys=KEYS, roots=(tmp_path_factory.mktemp("roots"),)
    ) as found:
        yield found


def test_keys(locked: Client) -> None:
    for headers in ({}, {"Authorization": "Basic x"}, {"Authorization": "Bearer "}):
        answer = locked.ask("POST", "/v1/completions", WORD, headers=headers)
        assert answer.status == 401
        assert answer.error["type"] == "authentication_error"
        assert answer.headers["www-authenticate"] == "Bearer"
    answer = locked.complete("soft", prompt="so", key="boss-key-2")
    assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
    assert locked.complete("soft", prompt="so", key="boss-key-1").status == 200
    assert locked.complete("soft", prompt="so", key="tenant-key-a", max_tokens=4).status == 200
    for path in ("/v1/models", "/v1/prompts", "/metrics"):
        assert locked.ask("GET", path).status == 401
    assert locked.ask("GET", "/health").status == locked.ask("GET", "/ready").status == 200


def test_a_key_reaches_its_own_models_alone(locked: Client) -> None:
    """What it may not use is refused alike, whether it is there or not."""
    for name in ("deep", BASE, "nothing", "head"):
        answer = locked.complete(name, prompt="so", key="tenant-key-a")
        assert answer.status == 403
        assert answer.error["message"] == f"model: this key may not use '{name}'"
        assert locked.ask("GET", f"/v1/models/{name}", key="tenant-key-a").status == 403
        classified = {"model": name, "input": "so"}
        assert locked.ask("POST", "/v1/classify", classified, key="tenant-key-a").status == 403
    assert locked.complete("other-nothing", prompt="so", key="tenant-key-a").status == 404
    for path in ("/v1/models", "/v1/prompts"):
        listed = locked.ask("GET", path, key="tenant-key-a").json["data"]
        assert {one["id"] for one in listed} == {
            "soft",
            "other-soft",
            "other-head",
            "other-vectors",
        }


def test_a_keys_own_limits(locked: Client) -> None:
    answer = locked.complete("soft", prompt="so", key="tenant-key-a", max_tokens=5)
    assert answer.status == 400
    assert "more than the 4 that an answer may have" in answer.error["message"]
    (choice,) = locked.complete("soft", prompt="so", key="tenant-key-a").json["choices"]
    assert choice["finish_reason"] == "length"
    statuses = [locked.complete("deep", prompt="so", key="tenant-key-b").status for _ in range(5)]
    assert statuses[:3] == [200] * 3
    assert 429 in statuses[3:]
    answer = locked.complete("deep", prompt="so", key="tenant-key-b")
    assert answer.error["type"] == "rate_limit_error"
    assert 1 <= int(answer.headers["retry-after"]) <= 20


def test_requests_of_a_key_at_the_same_time(locked: Client) -> None:
    def ask(_: int) -> int:
        return locked.complete("deep", prompt="so", key="tenant-key-c", max_tokens=60).status

    with ThreadPoolExecutor(6) as pool:
        statuses = list(pool.map(ask, range(6)))
    assert set(statuses) == {200, 429}
    assert locked.complete("deep", prompt="so", key="tenant-key-c").status == 200


def test_only_an_admin_changes_prompts_and_reads_metrics(locked: Client) -> None:
    body = {"name": "soft", "folder": "x"}
    for key in ("tenant-key-a", "tenant-key-c"):
        for method, path, given in (
            ("POST", "/v1/prompts", body),
            ("DELETE", "/v1/prompts/soft", None),
            ("GET", "/metrics", None),
        ):
            answer = locked.ask(method, path, given, key=key)
            assert (answer.status, answer.error["type"]) == (403, "permission_error")
    assert locked.ask("GET", "/metrics", key="boss-key-1").status == 200


def test_metrics_count_by_model(client: Client) -> None:
    before = time.monotonic()
    client.complete("deep", prompt="so", max_tokens=3)
    client.complete("deep", prompt="so", temperature=-1)
    client.complete("nothing", prompt="so")
    text = client.ask("GET", "/metrics").content.decode()
    numbers = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(numbers['foreword_requests_total{model="deep",status="200"}']) >= 1
    assert float(numbers['foreword_completion_tokens_total{model="deep"}']) >= 3
    assert float(numbers['foreword_time_to_first_token_seconds_count{model="deep"}']) >= 1
    assert not any("nothing" in name for name in numbers)
    assert float(numbers["foreword_step_rows_total"]) >= float(numbers["foreword_steps_total"]) > 0
    assert float(numbers["foreword_waiting"]) == 0
    assert time.monotonic() - before < 60


def test_messages_hold_what_utf8_has_no_form_for(client: Client) -> None:
    answer = client.ask("POST", "/v1/completions", raw=json.dumps({"\ud800": 1}).encode())
    assert answer.status == 400
    assert client.complete("\ud800", prompt="so").status == 400
