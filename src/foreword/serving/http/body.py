"""Bodies of requests: bounded, JSON, and what is asked for."""

from __future__ import annotations

import asyncio
import time
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from foreword.common.json_text import parse_json
from foreword.recipe.problems import explain
from foreword.serving.http.errors import Refusal

Body = TypeVar("Body", bound=BaseModel)


class BodyLimit:
    """Refuses bodies of more than so many bytes, before and while they are read, and those that are
    not here after so many seconds.

    Args:
        app: what is behind it.
        most: bytes.
        seconds: from the beginning of the request.
    """

    def __init__(self, app: ASGIApp, most: int, seconds: float) -> None:
        self.app, self.most, self.seconds = app, most, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        stated = dict(scope["headers"]).get(b"content-length", b"0")
        if not stated.isdigit() or int(stated) > self.most:
            await self._too_large().response()(scope, receive, send)
            return
        seen, ended = 0, False
        end = time.monotonic() + self.seconds

        async def counted() -> Message:
            nonlocal seen, ended
            if ended:  # whoever asks now waits for the client to leave
                return await receive()
            try:
                async with asyncio.timeout(end - time.monotonic()):
                    message = await receive()
            except TimeoutError as error:
                raise self._too_slow() from error
            ended = not message.get("more_body", False)
            seen += len(message.get("body", b""))
            if seen > self.most:
                raise self._too_large()
            return message

        await self.app(scope, counted, send)

    def _too_large(self) -> Refusal:
        return Refusal(413, f"the body of a request may have {self.most:,} bytes")

    def _too_slow(self) -> Refusal:
        message = f"the body of a request was not here after {self.seconds:g} seconds"
        return Refusal(408, message, code="timeout")


async def read_body(request: Request, model: type[Body]) -> Body:
    """What a request asks.

    Raises:
        Refusal: 400, the body is no JSON, or not what is asked for here; all mistakes at once.
    """
    try:
        raw = parse_json(await request.body())
    except ClientDisconnect as error:
        raise Refusal(400, "the request was not sent to its end") from error
    except ValueError as error:
        raise Refusal(400, f"the body is no JSON that can be read: {str(error)[:200]}") from error
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        lines = explain(error, model, root="body")
        raise Refusal(400, "\n".join(lines), param=_field(error)) from error


def _field(error: ValidationError) -> str | None:
    """The field that a mistake is in, where it is in one."""
    place: tuple[Any, ...] = error.errors()[0]["loc"]
    return str(place[0])[:64] if place else None
