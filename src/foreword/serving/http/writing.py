"""/v1/completions and /v1/chat/completions."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from foreword.backbone import Telling, Written
from foreword.serving.http.access import Holder
from foreword.serving.http.answers import Choice, Form, spread
from foreword.serving.http.body import read_body
from foreword.serving.http.errors import Json, Refusal
from foreword.serving.http.exchange import GONE, Event, EventStream, exchange, unless_gone
from foreword.serving.http.schema import (
    ChatRequest,
    CompletionRequest,
    DecodingRequest,
    apart,
    each_of,
)
from foreword.serving.http.served import Served
from foreword.serving.service import Asked, Model, Settings
from foreword.tasks import Writing

SEEDS = 2**63


async def completions(served: Served, holder: Holder, request: Request) -> Response:
    """Texts that go on with a text, or answer a prompt's fields."""
    body = await read_body(request, CompletionRequest)
    begun = time.monotonic()
    request.state.model = body.model
    model = await served.model(holder, body.model)
    settings = replace(_settings(body, holder), most=body.max_tokens)
    given = each_of("prompt", apart(body.prompt), body.fields)

    def ask() -> list[Asked]:
        return [served.service.written(model, one, settings, where) for where, one in given]

    prompts = await asyncio.to_thread(ask)
    echoes = bool(body.echo) and body.logprobs is not None
    if echoes:
        _check_source_is_told(model)
    form = _form(served, body, "text_completion", body.logprobs, echo=bool(body.echo))
    telling = Telling(text=True, best=body.logprobs, source=echoes)
    return await _answer(served, request, body, prompts, form, telling, begun)


async def chat(served: Served, holder: Holder, request: Request) -> Response:
    """The next message of a chat."""
    body = await read_body(request, ChatRequest)
    begun = time.monotonic()
    request.state.model = body.model
    model = await served.model(holder, body.model)
    most = body.max_completion_tokens or body.max_tokens
    settings = replace(_settings(body, holder), most=most, fills=True)
    messages = [
        {"role": "system" if one.role == "developer" else one.role, "content": one.text}
        for one in body.messages
    ]
    prompt = await asyncio.to_thread(served.service.chat, model, messages, settings)
    best = (body.top_logprobs or 0) if body.logprobs else None
    form = _form(served, body, "chat.completion", best)
    return await _answer(
        served, request, body, [prompt], form, Telling(text=True, best=best), begun
    )


async def _answer(
    served: Served,
    request: Request,
    body: DecodingRequest,
    prompts: Sequence[Asked],
    form: Form,
    telling: Telling,
    begun: float,
) -> Response:
    """Have it written, and tell it at once or as it comes."""
    choices = list(spread(prompts, body.n or 1))
    seed = secrets.randbits(62) if body.seed is None else body.seed
    works: list[Writing] = [
        replace(choice.asked.writing, seed=(seed + choice.index) % SEEDS) for choice in choices
    ]
    left = served.spec.timeout - (time.monotonic() - begun)
    stack = AsyncExitStack()
    heard = _Heard(served, choices, body.model, begun)
    stack.callback(heard.count)
    try:
        events = await stack.enter_async_context(exchange(served.engine, works, telling))
        if body.stream:
            pieces = _pieces(form, choices, heard.listen(events))
            return EventStream(pieces, left, stack)
        done = await unless_gone(request, _drained(heard.listen(events)), left)
    except BaseException:
        await stack.aclose()
        raise
    await stack.aclose()
    return Json(form.whole(choices)) if done else Response(status_code=GONE)


class _Heard:
    """Passes on what the engine tells of choices, and counts it."""

    def __init__(self, served: Served, choices: Sequence[Choice], model: str, begun: float) -> None:
        self.served, self.choices, self.model, self.begun = served, choices, model, begun
        self._begun = False

    async def listen(self, events: AsyncIterator[Event]) -> AsyncIterator[tuple[Choice, Written]]:
        """Each event with its choice, which has taken it."""
        async for number, event in events:
            assert isinstance(event, Written), "texts are written"
            if not self._begun:
                self._begun = True
                seconds = time.monotonic() - self.begun
                self.served.metrics.first.labels(self.model).observe(seconds)
            self.choices[number].take(event)
            yield self.choices[number], event

    def count(self) -> None:
        """Count tokens, when all is told or the client has left."""
        metrics = self.served.metrics
        read = {id(one.asked): one.prompt_tokens for one in self.choices}
        metrics.read.labels(self.model).inc(sum(read.values()) if self._begun else 0)
        metrics.written.labels(self.model).inc(sum(one.written for one in self.choices))


async def _drained(events: AsyncIterator[Any]) -> bool:
    async for _ in events:
        pass
    return True


async def _pieces(
    form: Form, choices: Sequence[Choice], events: AsyncIterator[tuple[Choice, Written]]
) -> AsyncIterator[dict[str, Any]]:
    """What a stream says."""
    if form.chat or form.echo:
        for choice in choices:
            piece = form.piece(choice, None)
            if piece is not None:
                yield piece
    async for choice, event in events:
        piece = form.piece(choice, event)
        if piece is not None:
            yield piece
    if form.usage:
        yield form.last(choices)


def _form(
    served: Served, body: DecodingRequest, kind: str, best: int | None, *, echo: bool = False
) -> Form:
    backbone = served.service.backbone
    usage = body.stream_options is not None and body.stream_options.include_usage
    fingerprint = f"fp_{backbone.sha256[:12]}"
    return Form(body.model, kind, fingerprint, backbone.tokens, best, echo, usage)


def _settings(body: DecodingRequest, holder: Holder) -> Settings:
    return Settings(
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=body.top_k,
        repetition_penalty=body.repetition_penalty,
        stop=body.stops,
        allowed=holder.max_tokens,
    )


def _check_source_is_told(model: Model) -> None:
    """Raise Refusal where an input has no log-probabilities of its own."""
    tuned = model.task.model
    if tuned.backbone.geometry.kind != "decoder":
        reason = "its input is read by an encoder, which predicts no tokens"
    elif model.task.task.soft or tuned.placement.kind == "infix":
        reason = "it has virtual tokens among the words of its input or after it"
    else:
        return
    raise Refusal(
        400, f"echo: '{model.name}' tells no log-probabilities of its input: {reason}", param="echo"
    )
