"""/v1/classify and /v1/embeddings: what is read off the backbone, in one piece."""

from __future__ import annotations

import asyncio
import base64
import time
import uuid
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from foreword.backbone import Telling
from foreword.serving.http.access import Holder
from foreword.serving.http.body import read_body
from foreword.serving.http.errors import Json, Refusal
from foreword.serving.http.exchange import GONE, exchange, unless_gone
from foreword.serving.http.schema import ClassifyRequest, EmbeddingRequest, apart, each_of
from foreword.serving.http.served import Served
from foreword.serving.jobs import Told
from foreword.tasks import Prediction
from foreword.tasks import Request as Reading


async def classify(served: Served, holder: Holder, request: Request) -> Response:
    """The label of a text, the tags of its words, the span that answers a question, or a word."""
    body = await read_body(request, ClassifyRequest)
    begun = time.monotonic()
    request.state.model = body.model
    model = await served.model(holder, body.model)
    texts = [body.input] if isinstance(body.input, str) else body.input
    given = each_of("input", texts, body.fields)

    def ask() -> list[Reading]:
        return [served.service.read(model, one, where) for where, one in given]

    works = await asyncio.to_thread(ask)
    predictions = await _predictions(served, request, body.model, works, begun)
    if predictions is None:
        return Response(status_code=GONE)
    return Json(
        {
            "id": f"classify-{uuid.uuid4().hex}",
            "object": "list",
            "created": int(time.time()),
            "model": body.model,
            "data": [{"index": n, **_told(one)} for n, one in enumerate(predictions)],
        }
    )


async def embeddings(served: Served, holder: Holder, request: Request) -> Response:
    """The vectors of texts, by a prompt that gives them."""
    body = await read_body(request, EmbeddingRequest)
    begun = time.monotonic()
    request.state.model = body.model
    served.check_may_use(holder, body.model)
    if body.model == served.service.name:
        raise Refusal(
            400,
            f"model: '{body.model}' is the backbone, which gives no vectors by itself; name a "
            "prompt that does (GET /v1/models: `answers` is `embeddings`)",
            param="model",
        )
    model = await served.model(holder, body.model)
    given = each_of("input", apart(body.input), body.fields)

    def ask() -> list[Reading]:
        vector, paired = served.service.vector, body.paired
        return [vector(model, one, where, paired=paired) for where, one in given]

    works = await asyncio.to_thread(ask)
    width = served.service.backbone.hidden_width
    if body.dimensions not in (None, width):
        raise Refusal(
            400,
            f"dimensions: {body.dimensions} is asked for, but the vectors of '{body.model}' have "
            f"{width} numbers; leave it out",
            param="dimensions",
        )
    predictions = await _predictions(served, request, body.model, works, begun)
    if predictions is None:
        return Response(status_code=GONE)
    tokens = sum(map(served.service.read_tokens, works))
    served.metrics.read.labels(body.model).inc(tokens)
    form = body.encoding_format or "float"
    return Json(
        {
            "object": "list",
            "data": [
                {"object": "embedding", "index": n, "embedding": _vector(one, form), **_cut(one)}
                for n, one in enumerate(predictions)
            ],
            "model": body.model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
    )


async def _predictions(
    served: Served, request: Request, model: str, works: Sequence[Reading], begun: float
) -> list[Prediction] | None:
    """What is read of some inputs, in their order; None where the client has left."""
    predictions: dict[int, Prediction] = {}

    async def answer() -> bool:
        async with exchange(served.engine, works, Telling()) as events:
            async for number, event in events:
                assert isinstance(event, Told)
                assert event.prediction is not None
                predictions[number] = event.prediction
        return True

    left = served.spec.timeout - (time.monotonic() - begun)
    if not await unless_gone(request, answer(), left):
        return None
    served.metrics.first.labels(model).observe(time.monotonic() - begun)
    return [predictions[number] for number in range(len(works))]


def _told(one: Prediction) -> dict[str, Any]:
    """An answer by what it is."""
    described: dict[str, Any] = {}
    if isinstance(one.answer, tuple):
        described = {"tags": list(one.answer), "probabilities": one.probability}
    elif one.probabilities:
        shares = one.probabilities
        described = {
            "label": one.answer,
            "probs": list(shares.values()),
            "num_classes": len(shares),
            "probabilities": shares,
        }
    elif one.score is not None:
        described = {"answer": one.answer, "start": one.start, "score": one.score}
    else:
        described = {"label": one.answer, "probability": one.probability}
    return {**described, **_cut(one)}


def _cut(one: Prediction) -> dict[str, Any]:
    return {"truncated": True} if one.truncated else {}


def _vector(one: Prediction, form: Literal["float", "base64"]) -> list[float] | str:
    """A vector as OpenAI writes it."""
    numbers = np.array(one.answer, dtype="<f4")
    if not np.isfinite(numbers).all():
        raise FloatingPointError("a vector has numbers that are not finite")
    if form == "base64":
        return base64.b64encode(numbers.tobytes()).decode()
    return [float(str(number)) for number in numbers]
