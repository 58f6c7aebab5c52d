"""Calling an ASGI application from within it, and changing what it answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Change = Callable[[bytes], bytes]
"""Of the body of an answer."""


async def body_of(receive: Receive) -> bytes | None:
    """All of a request's body; None where the client has gone."""
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


def given(body: bytes, receive: Receive) -> Receive:
    """What a request receives whose body was read already: that body, then what else comes."""
    first = [True]

    async def replay() -> Message:
        if first:
            first.clear()
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return replay


def with_body(scope: Scope, body: bytes) -> Scope:
    """The same request with another body."""
    about_it = (b"content-length", b"transfer-encoding")
    kept = [pair for pair in scope["headers"] if pair[0].lower() not in about_it]
    return {**scope, "headers": [*kept, (b"content-length", str(len(body)).encode())]}


async def call(app: App, scope: Scope, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """Call an application in the name of a request, with its headers.

    Args:
        app: what stands behind.
        scope: the request's.
        method: of the call.
        path: of the call, below the request's own root path.
        body: sent as JSON.

    Returns:
        The status, and what the answer's JSON says.
    """
    content = b"" if body is None else json.dumps(body).encode()
    whole = scope.get("root_path", "") + path
    inner = {
        **with_body(scope, content),
        "method": method,
        "path": whole,
        "raw_path": whole.encode(),
        "query_string": b"",
    }
    status, parts, first = 500, list[bytes](), [True]

    async def receive() -> Message:
        if first:
            first.clear()
            return {"type": "http.request", "body": content, "more_body": False}
        await asyncio.Event().wait()  # the caller waits, so nobody disconnects
        raise AssertionError("unreachable")

    async def send(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        else:
            parts.append(message.get("body", b""))

    await app(inner, receive, send)
    answer = b"".join(parts)
    try:
        return status, json.loads(answer)
    except ValueError:
        return status, answer.decode(errors="replace")


def changing(send: Send, change: Change) -> Send:
    """Sends what an application answers with its body changed as a whole, where it is no error."""
    start: list[Message] = []
    parts: list[bytes] = []

    async def changed(message: Message) -> None:
        if message["type"] == "http.response.start":
            start.append(message)
            return
        parts.append(message.get("body", b""))
        if message.get("more_body"):
            return
        body = b"".join(parts)
        if start[0]["status"] == 200:
            body = change(body)
        headers = [pair for pair in start[0]["headers"] if pair[0].lower() != b"content-length"]
        length = (b"content-length", str(len(body)).encode())
        await send({**start[0], "headers": [*headers, length]})
        await send({"type": "http.response.body", "body": body})

    return changed


def changing_events(send: Send, change: Change) -> Send:
    """Sends server-sent events with each of them changed; an answer of another type as it is."""
    rest = [b""]
    streams = [False]

    async def changed(message: Message) -> None:
        if message["type"] == "http.response.start":
            types = [value for name, value in message["headers"] if name.lower() == b"content-type"]
            streams[0] = any(one.startswith(b"text/event-stream") for one in types)
        elif streams[0]:
            *events, rest[0] = (rest[0] + message.get("body", b"")).split(b"\n\n")
            body = b"".join(change(event) + b"\n\n" for event in events)
            if not message.get("more_body"):
                body, rest[0] = body + rest[0], b""
            elif not body:
                return
            message = {**message, "body": body}
        await send(message)

    return changed


async def answer(send: Send, status: int, content: Any) -> None:
    """Answer with JSON."""
    body = json.dumps(content).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
