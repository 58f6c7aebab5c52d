"""The application: addresses, and what happens around each of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from foreword.errors import BusyError
from foreword.serving.http import catalogue, reading, writing
from foreword.serving.http.access import Holder
from foreword.serving.http.body import BodyLimit
from foreword.serving.http.errors import Json, Refusal, refusal_of
from foreword.serving.http.schema import (
    ChatRequest,
    ClassifyRequest,
    CompletionRequest,
    EmbeddingRequest,
    ErrorResponse,
    PromptRequest,
)
from foreword.serving.http.served import Served

BODIES = (CompletionRequest, ChatRequest, ClassifyRequest, EmbeddingRequest, PromptRequest)
Answering = Callable[[Served, Holder, Request], Awaitable[Response]]
_log = logging.getLogger("foreword.serving")


def make_app(served: Served) -> FastAPI:
    """The application around a server's parts."""
    app = FastAPI(title="foreword", version=version("foreword"), docs_url=None, redoc_url=None)
    app.add_middleware(BodyLimit, most=served.spec.body, seconds=served.spec.timeout)

    def address(
        method: str, path: str, answer: Answering, body: type[BaseModel] | None = None
    ) -> None:
        async def respond(request: Request) -> Response:
            return _Handled(served, request, answer)

        app.add_api_route(
            path,
            respond,
            methods=[method],
            name=answer.__name__,
            description=answer.__doc__,
            response_class=Json,
            responses=_RESPONSES,
            openapi_extra=None if body is None else _asks_for(body),
        )

    address("POST", "/v1/completions", writing.completions, CompletionRequest)
    address("POST", "/v1/chat/completions", writing.chat, ChatRequest)
    address("POST", "/v1/classify", reading.classify, ClassifyRequest)
    address("POST", "/v1/embeddings", reading.embeddings, EmbeddingRequest)
    address("GET", "/v1/models", catalogue.models)
    address("GET", "/v1/models/{name:path}", catalogue.model)
    address("GET", "/v1/prompts", catalogue.prompts)
    address("POST", "/v1/prompts", catalogue.add_prompt, PromptRequest)
    address("DELETE", "/v1/prompts/{name}", catalogue.remove_prompt)
    address("GET", "/metrics", catalogue.metrics)

    @app.get("/health")
    async def health() -> Response:
        """Whether the engine answers."""
        well = served.engine.healthy
        return Json({"status": "ok" if well else "failing"}, 200 if well else 503)

    @app.get("/ready")
    async def ready() -> Response:
        """Whether requests are taken on."""
        fine = served.engine.healthy and not served.draining
        return Json({"status": "ready" if fine else "not ready"}, 200 if fine else 503)

    @app.exception_handler(HTTPException)
    async def not_here(request: Request, error: HTTPException) -> Response:
        """No such address, or not with this method."""
        message = f"{request.method} {request.url.path[:200]}: {error.detail}"
        refusal = Refusal(error.status_code, message).response()
        refusal.headers.update(error.headers or {})
        return refusal

    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


class _Handled(Response):
    """An answer that is made while it is sent, so that all of it, streams too, is counted, timed
    and in one span.

    Args:
        served: what answers.
        request: what is asked.
        answer: how.
    """

    def __init__(self, served: Served, request: Request, answer: Answering) -> None:
        super().__init__()
        self.served, self.request, self.answer = served, request, answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Make it and send it."""
        served, request = self.served, self.request
        begun, status = time.monotonic(), 500
        with ExitStack() as stack:
            note = stack.enter_context(served.tracing.span(request.url.path, request.headers))
            try:
                if served.draining:
                    raise BusyError("the server is stopping; ask again later", closing=True)
                holder = served.access.holder(request.headers.get("authorization"))
                note("foreword.key", holder.name)
                stack.enter_context(served.access.counted(holder))
                response = await self.answer(served, holder, request)
            except Exception as error:
                refusal = refusal_of(error)
                if refusal.status == 500:
                    _log.error("a request failed", exc_info=error)
                response = refusal.response()
            try:
                status = response.status_code
                await response(scope, receive, send)
                status = getattr(response, "ended", status)
            finally:
                model = getattr(request.state, "model", "")
                note("gen_ai.request.model", model)
                note("http.response.status_code", status)
                if model == served.service.name or model in served.store:
                    served.metrics.answered(model, status, time.monotonic() - begun)


def _asks_for(body: type[BaseModel]) -> dict[str, Any]:
    """What an address says of its body."""
    schema = {"$ref": f"#/components/schemas/{body.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _openapi(app: FastAPI) -> dict[str, Any]:
    """The schema of all addresses."""
    if app.openapi_schema is None:
        made = get_openapi(title=app.title, version=app.version, routes=app.routes)
        _, bodies = models_json_schema(
            [(body, "validation") for body in BODIES],
            ref_template="#/components/schemas/{model}",
        )
        made["components"]["schemas"].update(bodies["$defs"])
        made["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        app.openapi_schema = made
    return app.openapi_schema


_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorResponse, "description": title}
    for status, title in (
        (400, "The request is wrong"),
        (401, "There is no such key"),
        (403, "The key may not do this"),
        (404, "There is no such model or prompt"),
        (408, "The body did not come"),
        (413, "The body is too large"),
        (429, "Too much is asked"),
        (500, "The answer failed"),
        (503, "Not now"),
    )
}
