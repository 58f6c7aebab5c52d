"""A server that runs in a thread, and ways to ask it."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foreword.backbone import Backbone
from foreword.serving.http.served import Served
from foreword.serving.http.server import Server, prepare
from foreword.serving.spec import ServeSpec

BASE = "base"


@dataclass(frozen=True)
class Answer:
    """What a server answers."""

    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        """Its body."""
        return json.loads(self.content)

    @property
    def error(self) -> dict[str, Any]:
        """What went wrong, in OpenAI's form."""
        body = self.json
        assert set(body) == {"error"}
        assert set(body["error"]) == {"message", "type", "param", "code"}
        found: dict[str, Any] = body["error"]
        return found

    @property
    def events(self) -> list[dict[str, Any]]:
        """The pieces of a stream, which must have its end."""
        lines = [line for line in self.content.decode().split("\n\n") if line]
        assert all(line.startswith("data: ") for line in lines)
        assert lines[-1] == "data: [DONE]"
        return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


@dataclass(frozen=True)
class Client:
    """Asks a server.

    Attributes:
        served: its parts.
        port: where it listens.
        server: runs it.
    """

    served: Served
    port: int
    server: Server

    @property
    def url(self) -> str:
        """Where OpenAI's clients ask."""
        return f"http://127.0.0.1:{self.port}/v1"

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str | None = None,
        raw: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """One request."""
        given = {"Content-Type": "application/json", **(headers or {})}
        if key is not None:
            given["Authorization"] = f"Bearer {key}"
        content = raw if body is None else json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, content, given)
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read())
        finally:
            connection.close()

    def complete(self, model: str = BASE, *, key: str | None = None, **body: Any) -> Answer:
        """A completion."""
        return self.ask("POST", "/v1/completions", {"model": model, **body}, key=key)

    def texts(self, model: str = BASE, **body: Any) -> list[str]:
        """The texts of a completion, which must succeed."""
        answer = self.complete(model, **body)
        assert answer.status == 200, answer.content
        return [choice["text"] for choice in answer.json["choices"]]


@contextmanager
def running(backbone: Backbone, **settings: Any) -> Iterator[Client]:
    """A server with such settings, until the block is left."""
    spec = ServeSpec(backbone="unused", port=0, **{"name": BASE, **settings})
    served = prepare(spec, backbone)
    listening: list[int] = []
    started = threading.Event()

    def ready(port: int) -> None:
        listening.append(port)
        started.set()

    server = Server(served, ready)
    thread = threading.Thread(target=lambda: asyncio.run(server.run_until_stopped()))
    thread.start()
    try:
        assert started.wait(30), "the server did not start"
        yield Client(served, listening[0], server)
    finally:
        server.stop()
        thread.join(30)
        assert not thread.is_alive(), "the server did not stop"


def named(folders: dict[str, Path]) -> dict[str, Path]:
    """Artifacts by names that a server takes."""
    return {name.replace(" ", "-"): folder for name, folder in folders.items()}
