"""What there is to ask: /v1/models, /v1/prompts and /metrics."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response

from foreword.errors import ArtifactError, BackboneError
from foreword.serving.http.access import Holder
from foreword.serving.http.body import read_body
from foreword.serving.http.errors import Json, Refusal
from foreword.serving.http.schema import PromptRequest
from foreword.serving.http.served import Served
from foreword.serving.prompts import Registered
from foreword.serving.uploads import below_roots_together
from foreword.tasks import task_of
from foreword.tasks.base import Verb

_log = logging.getLogger("foreword.serving")
_ANSWERS: dict[Verb, str] = {
    "generate": "completions",
    "predict": "classify",
    "embed": "embeddings",
}
_FIXED = "this server changes no prompts over HTTP; start it with --roots or --uploads"
CREATED = 0
"""OpenAI's field for a model's age, of which nothing is known."""


async def models(served: Served, holder: Holder, _: Request) -> Response:
    """The backbone and the prompts that a key may use."""
    data = [_model(served, name) for name in served.names(holder)]
    return Json({"object": "list", "data": [one for one in data if one is not None]})


async def model(served: Served, holder: Holder, request: Request) -> Response:
    """One of them."""
    name = request.path_params["name"]
    served.check_may_use(holder, name)
    description = _model(served, name)
    if description is None:
        raise Refusal(404, f"model: there is no '{name[:128]}' here any more", param="model")
    return Json(description)


def _model(served: Served, name: str) -> dict[str, Any] | None:
    """As OpenAI writes a model, with what a prompt's client needs to know of it."""
    own = {"id": name, "object": "model", "created": CREATED, "owned_by": "foreword"}
    longest = served.service.longest
    if name == served.service.name:
        return {**own, "root": name, "parent": None, "max_model_len": longest}
    prompt = served.store.find(name)
    if prompt is None:
        return None
    task = task_of(prompt.manifest.task)
    description = {
        "root": prompt.manifest.name,
        "parent": served.service.name,
        "max_model_len": max(0, longest - prompt.manifest.method.length),
        "fields": list(task.fields),
        "answers": _ANSWERS[task.verb],
    }
    if task.labels:
        description["labels"] = list(task.labels)
    if task.verb == "embed":
        description["dimensions"] = served.service.backbone.hidden_width
    return {**own, **description}


async def prompts(served: Served, holder: Holder, _: Request) -> Response:
    """The prompts that a key may use, with what they take."""
    entries = (served.store.find(name) for name in served.names(holder))
    data = [_prompt(served, holder, one) for one in entries if one is not None]
    return Json({"object": "list", "data": data})


def _prompt(served: Served, holder: Holder, prompt: Registered) -> dict[str, Any]:
    manifest = prompt.manifest
    parts = served.compositions.parts(prompt.name)
    shown = parts is not None and all(holder.may_use(part) for part in parts)
    return {
        "id": prompt.name,
        "object": "prompt",
        "artifact": manifest.name,
        "method": manifest.method.name,
        "length": manifest.method.length,
        "sha256": manifest.prompt_sha256,
        "bytes": prompt.bytes,
        "in_memory": prompt.loaded is not None,
        **({"parts": parts} if shown else {}),
    }


async def add_prompt(served: Served, holder: Holder, request: Request) -> Response:
    """Add a prompt, or replace one; requests under way end with the one they began with."""
    _check_admin(holder)
    body = await read_body(request, PromptRequest)
    if not holder.may_use(body.name):
        raise Refusal(403, f"name: this key may not use '{body.name[:128]}'", param="name")
    for part in body.parts or ():
        if not holder.may_use(part):
            raise Refusal(403, f"parts: this key may not use '{part[:128]}'", param="parts")
    replaced = body.name in served.store

    def add() -> Registered:
        if body.parts is not None:
            if not (served.spec.roots or served.uploads):
                raise Refusal(403, f"parts: {_FIXED}")
            return served.compositions.add(body.name, body.parts)
        if body.files is not None:
            if served.uploads is None:
                raise Refusal(
                    403, "files: this server takes no uploads; start it with --uploads FOLDER"
                )
            return served.uploads.add(body.name, body.files)
        assert body.folder is not None, "one of the two is given"
        if not served.spec.roots:
            raise Refusal(
                403, "folder: this server adds no folders over HTTP; start it with --roots FOLDER"
            )
        folders = below_roots_together(served.spec.roots, body.folder)
        if len(folders) > 1:
            return served.compositions.add(body.name, folders)
        return served.store.add(body.name, folders[0])

    def add_and_renew() -> Registered:
        registered = add()
        served.compositions.renew()
        return registered

    try:
        registered = await asyncio.to_thread(add_and_renew)
    except (ArtifactError, BackboneError) as error:
        (param,) = {"files", "folder", "parts"} & {
            name for name, value in body if value is not None
        }
        raise Refusal(400, str(error), param=param, code="bad_artifact") from error
    _log.info("%s the prompt '%s'", "replaced" if replaced else "added", body.name)
    description = _prompt(served, holder, registered)
    return Json({**description, "replaced": replaced}, 200 if replaced else 201)


async def remove_prompt(served: Served, holder: Holder, request: Request) -> Response:
    """Remove a prompt; requests that are under way end with it."""
    _check_admin(holder)
    name = request.path_params["name"]
    if not (served.spec.roots or served.uploads):
        raise Refusal(403, _FIXED)
    if name == served.service.name:
        raise Refusal(400, f"name: '{name}' is the backbone, which stays", param="name")
    served.check_may_use(holder, name)
    await asyncio.to_thread(served.store.remove, name)
    if served.uploads is not None:
        await asyncio.to_thread(served.uploads.remove, name)
    await asyncio.to_thread(served.versions.remove, name)
    served.metrics.forget(name)
    _log.info("removed the prompt '%s'", name)
    return Json({"id": name, "object": "prompt", "deleted": True})


async def metrics(served: Served, holder: Holder, _: Request) -> Response:
    """Numbers for Prometheus; with keys, for those of admins alone."""
    _check_admin(holder)
    return Response(served.metrics.text(), media_type=CONTENT_TYPE_LATEST)


def _check_admin(holder: Holder) -> None:
    if not holder.admin:
        raise Refusal(403, "this needs the key of an admin (`admin: true` in the server's keys)")
