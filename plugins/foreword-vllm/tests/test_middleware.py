"""The middleware before a server that answers as vLLM's does: what reaches it, what comes back."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from exported import write
from foreword_vllm.middleware import CHAT, COMPLETIONS, Foreword

SAMPLE = {"fields": {"record": "a b"}, "tokens": [1, *b"a b ->"]}


class Server:
    """vLLM's server as far as the middleware knows it: a token is a byte of the text."""

    def __init__(self, prompts: Path, keys: list[str] | None = None) -> None:
        transfer = SimpleNamespace(
            kv_connector="ForewordConnector", kv_connector_extra_config={"prompts": str(prompts)}
        )
        config = SimpleNamespace(
            kv_transfer_config=transfer, model_config=SimpleNamespace(max_model_len=64)
        )
        models = SimpleNamespace(
            base_model_paths=[SimpleNamespace(name="base"), SimpleNamespace(name="also")],
            lora_requests={"adapter": object()},
        )
        self.state = SimpleNamespace(
            vllm_config=config, openai_serving_models=models, args=SimpleNamespace(api_key=keys)
        )
        self.keys, self.bodies, self.calls = keys, list[dict[str, Any]](), list[str]()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request."""
        path = scope["path"]
        self.calls.append(path)
        content = (await receive())["body"]
        headers = dict(scope["headers"])
        if scope["method"] == "POST":
            assert headers[b"content-length"] == str(len(content)).encode()
        if self.keys and headers.get(b"authorization") not in [
            f"Bearer {key}".encode() for key in self.keys
        ]:
            await self.say(send, 401, {"error": "Unauthorized"})
            return
        if path == "/v1/models":
            await self.say(send, 200, {"object": "list", "data": [{"id": "base"}]})
            return
        try:
            body = json.loads(content)
        except ValueError:
            await self.say(send, 400, {"error": "no JSON"})
            return
        if path == "/tokenize":
            text = body.get("prompt")
            if text is None:
                text = "".join(f"<{m['role']}>{m['content']}" for m in body["messages"])
            await self.say(send, 200, {"tokens": list(text.encode()), "count": len(text)})
            return
        self.bodies.append(body)
        if body["model"] not in ("base", "also", "adapter"):
            await self.say(send, 404, {"error": {"message": "no such model"}})
            return
        details = {"cached_tokens": 7}
        usage = {"prompt_tokens": 3, "prompt_tokens_details": details}
        if not body.get("stream"):
            await self.say(send, 200, {"model": body["model"], "usage": usage, "text": "é"})
            return
        kind = (b"content-type", b"text/event-stream; charset=utf-8")
        await send({"type": "http.response.start", "status": 200, "headers": [kind]})
        text = json.dumps({"text": 'a "model":"base" b', "model": "base"}, separators=(",", ":"))
        last = json.dumps({"model": "base", "usage": usage}, separators=(",", ":"))
        stream = f"data: {text}\n\ndata: {last}\n\ndata: [DONE]\n\n".encode()
        for at in range(0, len(stream), 17):
            chunk = stream[at : at + 17]
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    @staticmethod
    async def say(send: Any, status: int, content: Any) -> None:
        """Answer with JSON."""
        body = json.dumps(content).encode()
        length = (b"Content-Length", str(len(body)).encode())
        await send({"type": "http.response.start", "status": status, "headers": [length]})
        await send({"type": "http.response.body", "body": body[:5], "more_body": True})
        await send({"type": "http.response.body", "body": body[5:]})


class Client:
    """Sends requests through the middleware."""

    def __init__(self, server: Server) -> None:
        self.server, self.app = server, Foreword(server)
        self.received = 0

    def __call__(
        self, path: str, body: Any = None, *, method: str = "POST", key: str | None = None
    ) -> tuple[int, Any]:
        """The status, and what was answered."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        parts = [content[:4], content[4:]]
        headers = [(b"content-length", str(len(content)).encode())]
        if key is not None:
            headers.append((b"authorization", f"Bearer {key}".encode()))
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "headers": headers,
            "app": self.server,
        }
        sent: list[Any] = []

        async def receive() -> Any:
            self.received += 1
            return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

        async def send(message: Any) -> None:
            sent.append(message)

        asyncio.run(self.app(scope, receive, send))
        answer = b"".join(message.get("body", b"") for message in sent[1:])
        told = {name.lower(): value for name, value in sent[0]["headers"]}
        if b"content-length" in told:
            assert told[b"content-length"] == str(len(answer)).encode()
        assert not sent[-1].get("more_body")
        try:
            return sent[0]["status"], json.loads(answer)
        except ValueError:
            return sent[0]["status"], answer.decode()


@pytest.fixture
def prompts(tmp_path) -> Path:
    write(tmp_path, "birds", sample=SAMPLE)
    chat = [{"role": "user", "content": ["Say ", {"field": "text"}]}]
    sample = {"fields": {"text": "x"}, "tokens": list(b"<user>Say x")}
    write(tmp_path, "chat", input=chat, sample=sample, tokens={"leading": [], "drops_blank": False})
    return tmp_path


@pytest.fixture
def client(prompts) -> Client:
    return Client(Server(prompts))


def test_a_prompts_name_is_a_models_name(client) -> None:
    status, said = client(COMPLETIONS, {"model": "birds", "prompt": ["x", [5, 6]]})
    assert (status, said["model"], said["text"]) == (200, "birds", "é")
    assert said["usage"] == {"prompt_tokens": 3, "prompt_tokens_details": {"cached_tokens": 2}}
    (body,) = client.server.bodies
    assert body["model"] == "base"
    assert body["prompt"] == [[1, *b"x ->"], [5, 6]]
    assert body["kv_transfer_params"]["foreword"] == "birds"


def test_chats(client) -> None:
    messages = [{"role": "user", "content": "hello"}]
    status, said = client(CHAT, {"model": "birds", "messages": messages, "tools": []})
    assert (status, said["model"]) == (200, "birds")
    assert client.server.bodies[0]["messages"] == messages
    status, _ = client(CHAT, {"model": "chat", "fields": {"text": "x"}})
    assert status == 200
    assert client.server.bodies[1]["messages"] == [{"role": "user", "content": "Say x"}]
    client(COMPLETIONS, {"model": "chat", "prompt": "y"})
    assert client.server.bodies[2]["prompt"] == [list(b"<user>Say y")]


def test_streams_are_in_the_prompts_name(client) -> None:
    status, said = client(COMPLETIONS, {"model": "birds", "prompt": "x", "stream": True})
    events = said.split("\n\n")
    assert (status, events[2:]) == (200, ["data: [DONE]", ""])
    first, last = (json.loads(event.removeprefix("data: ")) for event in events[:2])
    assert first == {"text": 'a "model":"base" b', "model": "birds"}
    assert last["model"] == "birds"
    assert last["usage"]["prompt_tokens_details"]["cached_tokens"] == 2


@pytest.mark.parametrize("name", ["base", "also", "adapter"])
def test_the_servers_own_names_go_through(name, client, prompts) -> None:
    write(prompts, name)
    body = {"model": name, "prompt": "x", "echo": True}
    status, said = client(COMPLETIONS, body)
    assert (status, said["model"]) == (200, name)
    assert client.server.bodies == [body]


@pytest.mark.parametrize("name", ["nobody", "../birds", "birds/", "Birds", "", 5, ["birds"], None])
def test_other_names_are_the_servers_to_refuse(name, client) -> None:
    body = {"model": name, "prompt": "x"}
    assert client(COMPLETIONS, body)[0] == 404
    assert client.server.bodies == [body]


def test_what_is_no_request_is_the_servers_to_refuse(client) -> None:
    assert client(COMPLETIONS, b"{")[0] == 400
    assert client(COMPLETIONS, b"\xff\xfe")[0] == 400
    assert client("/other", b"anything")[0] == 400


def test_models_are_listed(client, prompts) -> None:
    write(prompts, "damaged", length=0)
    write(prompts, "base")
    status, said = client("/v1/models", b"", method="GET")
    assert status == 200
    assert [one["id"] for one in said["data"]] == ["base", "birds", "chat"]
    birds = said["data"][1]
    assert (birds["max_model_len"], birds["parent"]) == (64 - 5, "base")
    assert birds["fields"] == ["record"]
    assert client("/v1/models/birds", b"", method="GET") == (200, birds)
    for name in ("nobody", "base", "../birds"):
        client(f"/v1/models/{name}", b"", method="GET")
        assert client.server.calls[-1] == f"/v1/models/{name}"


def test_prompts_come_and_go(client, prompts) -> None:
    ask = {"model": "late", "prompt": "x"}
    assert client(COMPLETIONS, ask)[0] == 404
    write(prompts, "late", sample=SAMPLE)
    assert client(COMPLETIONS, ask)[0] == 200
    shutil.rmtree(prompts / "late")
    assert client(COMPLETIONS, ask)[0] == 404


CHOOSING = [
    {"model": "base", "prompt": "x", "kv_transfer_params": {"foreword": "birds"}},
    {"model": "birds", "prompt": "x", "kv_transfer_params": {"do_remote_prefill": True}},
    {"model": "base", "vllm_xargs": {"kv_transfer_params": "birds"}},
    {"model": "base", "sampling_params": {"extra_args": {"kv_transfer_params": {"foreword": "b"}}}},
    {"model": "base", "prompt": "x", "ec_transfer_params": {"a": 1}},
]


@pytest.mark.parametrize("path", [COMPLETIONS, CHAT, "/v1/responses", "/inference/v1/generate"])
@pytest.mark.parametrize("body", CHOOSING)
def test_nobody_chooses_a_prompt_past_its_name(path, body, client) -> None:
    status, said = client(path, body)
    assert (status, "name a prompt" in said["error"]["message"]) == (400, True)
    assert client.server.bodies == []


def test_nor_by_another_way_of_writing_the_field(client) -> None:
    whole = json.dumps(CHOOSING[0])
    ways = [
        whole.replace("kv_", "kv\\u005f").encode(),
        whole.encode("utf-16"),
        whole.encode("utf-32-le"),
        (whole[:-1] + ', "kv_transfer_params": null}').encode(),
    ]
    for body in ways:
        assert client("/v1/responses", body)[0] == 400
    assert client.server.bodies == []
    assert client(COMPLETIONS, {"model": "base", "kv_transfer_params": None})[0] == 200


def test_mistakes_are_named(client) -> None:
    for path, body, field in (
        (COMPLETIONS, {"prompt": "x", "echo": True}, "echo"),
        (CHAT, {"messages": [], "prompt_logprobs": 1}, "prompt_logprobs"),
        (COMPLETIONS, {"prompt": "x" * 70}, "max_tokens"),
        (COMPLETIONS, {}, "prompt"),
        (CHAT, {"fields": {"record": "x"}}, "fields"),
    ):
        status, said = client(path, {"model": "birds", **body})
        assert (status, said["error"]["param"], said["error"]["code"]) == (400, field, 400)
    assert client.server.bodies == []


def test_the_longest_input(client) -> None:
    """64 positions: 5 virtual tokens, 1 leading, 9 of the answer, 3 of the template."""
    for length, expected in ((46, 200), (47, 400)):
        assert client(COMPLETIONS, {"model": "birds", "prompt": "x" * length})[0] == expected


def test_another_tokenizer_is_noticed(client, prompts) -> None:
    other = {**SAMPLE, "tokens": [1, 2, 3]}
    write(prompts, "birds", sample=other)
    status, said = client(COMPLETIONS, {"model": "birds", "prompt": "x"})
    assert (status, str(prompts) in str(said)) == (500, False)
    assert client.server.bodies == []


def test_the_tokenizer_is_asked_once(client) -> None:
    for _ in range(3):
        client(COMPLETIONS, {"model": "birds", "prompt": [5]})
    assert client.server.calls.count("/tokenize") == 1


def test_a_damaged_prompt_is_nobody_elses_trouble(client, prompts) -> None:
    write(prompts, "damaged", length=0)
    status, said = client(COMPLETIONS, {"model": "damaged", "prompt": "x"})
    assert (status, str(prompts) in str(said)) == (500, False)
    assert client(COMPLETIONS, {"model": "birds", "prompt": "x"})[0] == 200


def test_without_a_key_nothing_is_said_of_prompts(prompts) -> None:
    client = Client(Server(prompts, keys=["right"]))
    bodies = [
        {"model": "birds", "prompt": "x"},
        {"model": "birds", "prompt": "x", "echo": True},
        {"model": "nobody", "prompt": "x"},
        {"model": "base", "kv_transfer_params": {"foreword": "birds"}},
    ]
    for key in (None, "wrong"):
        answers = {str(client(COMPLETIONS, body, key=key)) for body in bodies}
        assert answers == {str((401, {"error": "Unauthorized"}))}
        assert client.received == 0, "what a stranger sends was read"
    for key in (None, "wrong"):
        for path in ("/v1/models", "/v1/models/birds", "/v1/models/nobody"):
            assert client(path, b"", method="GET", key=key)[0] == 401
    assert "/tokenize" not in client.server.calls
    statuses = [client(COMPLETIONS, body, key="right")[0] for body in bodies]
    assert statuses == [200, 400, 404, 400]


def test_a_server_without_the_connector_says_so(prompts) -> None:
    server = Server(prompts)
    server.state.vllm_config.kv_transfer_config = None
    status, said = Client(server)(COMPLETIONS, {"model": "birds", "prompt": "x"})
    assert (status, "log says why" in str(said)) == (500, True)
