"""One question over HTTP, timed: what `foreword serve --try` shows."""

from __future__ import annotations

import http.client
import json
import time
from typing import Any

from foreword.common.json_text import parse_json


def ask(host: str, port: int, model: str, text: str, key: str | None = None) -> dict[str, Any]:
    """What a server answers, and seconds to its first and last piece.

    Args:
        host, port: where it listens.
        model: what is asked.
        text: the question.
        key: of the server's.

    Raises:
        RuntimeError: it answers with an error.
        OSError: it does not answer.
    """
    headers = {"Content-Type": "application/json"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    body = json.dumps({"model": model, "prompt": text, "stream": True})
    begun = time.perf_counter()
    connection = http.client.HTTPConnection(host, port, timeout=120)
    try:
        connection.request("POST", "/v1/completions", body, headers)
        response = connection.getresponse()
        if response.status != 200:
            message = parse_json(response.read().decode())
            raise RuntimeError(message["error"]["message"])
        pieces, first = [], None
        for line in response:
            if not line.startswith(b"data: {"):
                continue
            message = parse_json(line.removeprefix(b"data: ").decode())
            if "error" in message:
                raise RuntimeError(message["error"]["message"])
            pieces.append(message["choices"][0]["text"])
            if first is None and pieces[-1]:
                first = time.perf_counter() - begun
    finally:
        connection.close()
    return {
        "model": model,
        "input": text,
        "output": "".join(pieces),
        "seconds_to_first_token": None if first is None else round(first, 4),
        "seconds": round(time.perf_counter() - begun, 4),
    }
