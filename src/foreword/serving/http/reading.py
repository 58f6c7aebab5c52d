"""/v1/classify: labels, tags, spans and words, told by heads and label words."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from foreword.backbone import Telling
from foreword.serving.http.access import Holder
from foreword.serving.http.body import read_body
from foreword.serving.http.errors import Json
from foreword.serving.http.exchange import exchange, unless_gone
from foreword.serving.http.schema import ClassifyRequest
from foreword.serving.http.served import Served
from foreword.serving.http.writing import GONE
from foreword.serving.jobs import Told
from foreword.tasks import Prediction
from foreword.tasks import Request as Reading


async def classify(served: Served, holder: Holder, request: Request) -> Response:
    """The label of a text, the tags of its words, the span that answers a question, or a word."""
    body = await read_body(request, ClassifyRequest)
    begun = time.monotonic()
    request.state.model = body.model
    model = await asyncio.to_thread(served.model, holder, body.model)
    inputs = body.input if body.fields is None else body.fields
    assert inputs is not None, "one of the two is given"
    given = inputs if isinstance(inputs, list) else [inputs]
    field = "input" if body.fields is None else "fields"

    def ask() -> list[Reading]:
        return [
            served.service.read(model, one, field if len(given) == 1 else f"{field}.{number}")
            for number, one in enumerate(given)
        ]

    works = await asyncio.to_thread(ask)
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
        return Response(status_code=GONE)
    served.metrics.first.labels(body.model).observe(time.monotonic() - begun)
    return Json(
        {
            "id": f"classify-{uuid.uuid4().hex}",
            "object": "list",
            "created": int(time.time()),
            "model": body.model,
            "data": [{"index": n, **_told(predictions[n])} for n in range(len(works))],
        }
    )


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
    return {**described, **({"truncated": True} if one.truncated else {})}
