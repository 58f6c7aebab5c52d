"""What vLLM's server answers, as a client of a prompt is to see it."""

from __future__ import annotations

import json
from typing import Any

from foreword_vllm.prompts import Prompt


class Answers:
    """Answers in a prompt's name.

    The tokens that stand for virtual ones are put in by the scheduler, behind vLLM's counting of
    the input, so that usage counts the text alone; what was found in a cache counts them.

    Args:
        prompt: whose answers they are.
        served: the base model's name.
    """

    def __init__(self, prompt: Prompt, served: str) -> None:
        self._prompt = prompt
        self._name = json.dumps(prompt.name).encode()
        self._fields = tuple(
            b'"model":' + blank + json.dumps(served, ensure_ascii=ascii_only).encode()
            for blank in (b"", b" ")
            for ascii_only in (False, True)
        )

    def whole(self, body: bytes) -> bytes:
        """A whole answer's body."""
        answer = json.loads(body)
        self._restore(answer)
        return json.dumps(answer, ensure_ascii=False).encode()

    def event(self, event: bytes) -> bytes:
        """One event of a stream, `data: {...}`.

        In a JSON text a quotation mark has a backslash before it, so that the bytes of the field
        stand nowhere but there.
        """
        if b'"cached_tokens"' in event and event.startswith(b"data: {"):
            chunk = json.loads(event[6:])
            self._restore(chunk)
            return b"data: " + json.dumps(chunk, ensure_ascii=False).encode()
        for field in self._fields:
            if field in event:
                return event.replace(field, b'"model":' + self._name, 1)
        return event

    def _restore(self, answer: dict[str, Any]) -> None:
        if "model" in answer:
            answer["model"] = self._prompt.name
        details = (answer.get("usage") or {}).get("prompt_tokens_details") or {}
        if details.get("cached_tokens"):
            details["cached_tokens"] = max(0, details["cached_tokens"] - self._prompt.length)


def as_model(prompt: Prompt, served: str, context: int) -> dict[str, Any]:
    """A prompt as `/v1/models` lists it, `max_model_len` being what it leaves for text."""
    return {
        "id": prompt.name,
        "object": "model",
        "created": 0,
        "owned_by": "foreword",
        "root": prompt.name,
        "parent": served,
        "max_model_len": context - prompt.length,
        "fields": list(prompt.input.fields),
        "answers": "completions",
        "permission": [],
    }


def error(status: int, message: str, field: str | None = None) -> dict[str, Any]:
    """An error in OpenAI's form."""
    kind = {400: "BadRequestError", 404: "NotFoundError"}.get(status, "InternalServerError")
    return {"error": {"message": message, "type": kind, "param": field, "code": status}}
