"""`--middleware foreword_vllm.middleware.Foreword`: a prompt's name is a model's name.

A completion or a chat whose `model` is a prompt's gets the base model's name, the prompt's template
and settings, and the prompt itself beside it; `/v1/models` lists prompts behind the base model.
Prompts lie in the folder that `--kv-transfer-config` names. Everything else goes through as it is,
but for fields by which a client would choose a prompt past its name.

vLLM puts this before its own check of API keys: whatever is answered here was first asked for
behind that check, in the request's name.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Container
from dataclasses import dataclass
from typing import Any

from foreword_vllm import CONNECTOR, asgi
from foreword_vllm.answers import Answers, as_model, error
from foreword_vllm.asgi import App, Receive, Scope, Send
from foreword_vllm.config import Config
from foreword_vllm.folder import PromptFolder
from foreword_vllm.prompts import Prompt, PromptError
from foreword_vllm.requests import (
    RESERVED,
    Row,
    Wrong,
    answer_tokens,
    check_room,
    messages_of,
    refuse,
    rewritten,
    rows_of,
    sample_of,
)

logger = logging.getLogger("vllm.foreword")
COMPLETIONS, CHAT, MODELS = "/v1/completions", "/v1/chat/completions", "/v1/models"
_TEMPLATE_FIELDS = (
    "add_generation_prompt",
    "add_special_tokens",
    "chat_template",
    "chat_template_kwargs",
    "continue_final_message",
    "messages",
    "tools",
)
"""What of a chat decides how its messages become tokens."""


class _Answered(Exception):
    """The server behind has answered with an error, which is the request's."""

    def __init__(self, status: int, content: Any) -> None:
        super().__init__(str(content))
        self.status, self.content = status, content


@dataclass(frozen=True)
class _Server:
    """What the server behind says of itself.

    Attributes:
        folder: the prompts.
        names: the base model's, the first of which requests get.
        adapters: the server's own, by name; they change while it runs.
        context: tokens of a request.
    """

    folder: PromptFolder
    names: tuple[str, ...]
    adapters: Container[str]
    context: int

    @classmethod
    def of(cls, state: Any) -> _Server:
        """From vLLM's state of the application.

        Raises:
            PromptError: the server has no prompts.
        """
        config, models = state.vllm_config, state.openai_serving_models
        transfer = config.kv_transfer_config
        if transfer is None or transfer.kv_connector != CONNECTOR:
            raise PromptError(
                "the middleware foreword_vllm.middleware.Foreword needs --kv-transfer-config with "
                f'"kv_connector": "{CONNECTOR}"'
            )
        return cls(
            PromptFolder(Config.read(transfer.kv_connector_extra_config).prompts),
            tuple(path.name for path in models.base_model_paths),
            models.lora_requests,
            config.model_config.max_model_len,
        )

    @property
    def served(self) -> str:
        """The base model's name."""
        return self.names[0]

    def prompt(self, name: Any) -> Prompt | None:
        """The prompt of a name, unless it is a name of the server's own.

        Raises:
            PromptError: it is damaged.
        """
        if not isinstance(name, str) or name in self.names or name in self.adapters:
            return None
        return self.folder.get(name)


class Foreword:
    """The middleware, around an ASGI application of vLLM's server."""

    def __init__(self, app: App) -> None:
        self.app = app
        self._server: _Server | None = None
        self._fitting: set[tuple[str, tuple[int, ...]]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        path = str(scope.get("path", "")).removeprefix(scope.get("root_path", ""))
        models = path == MODELS or path.startswith(f"{MODELS}/")
        if scope["type"] != "http" or not (models or scope["method"] == "POST"):
            await self.app(scope, receive, send)
            return
        try:
            if self._server is None:
                self._server = _Server.of(scope["app"].state)
            server = self._server
            if models:
                await self._models(scope, server, path, receive, send)
                return
            if path.startswith("/v1/"):  # what a stranger sends is not read
                await self._admit(scope)
            body = await asgi.body_of(receive)
            if body is not None:
                made, out = await self._made(scope, server, path, body, send)
                await self.app(asgi.with_body(scope, made), asgi.given(made, receive), out)
        except Wrong as wrong:
            await self._refuse(scope, send, wrong)
        except _Answered as answered:
            await asgi.answer(send, answered.status, answered.content)
        except PromptError as problem:
            logger.error("foreword: %s", problem)
            message = "the prompt cannot be served; the server's log says why"
            await asgi.answer(send, 500, error(500, message, "model"))

    async def _models(
        self, scope: Scope, server: _Server, path: str, receive: Receive, send: Send
    ) -> None:
        """All models, or one of them."""
        if path == MODELS:
            send = asgi.changing(send, lambda body: _with_prompts(server, body))
        elif prompt := server.prompt(path.removeprefix(f"{MODELS}/")):
            await self._admit(scope)
            await asgi.answer(send, 200, as_model(prompt, server.served, server.context))
            return
        await self.app(scope, receive, send)

    async def _made(
        self, scope: Scope, server: _Server, path: str, body: bytes, send: Send
    ) -> tuple[bytes, Send]:
        """The body for the server behind, and where its answer goes.

        Raises:
            Wrong: the request is none that can be served.
            PromptError: the prompt is none that can be served.
        """
        ours = path in (COMPLETIONS, CHAT)
        fields = _parsed(body) if ours or _may_choose(body) else None
        if not ours or not isinstance(fields, dict):
            return body, send
        prompt = server.prompt(fields.get("model"))
        if prompt is None:
            return body, send
        refuse(fields, prompt)
        await self._check_tokenizer(scope, server, prompt)
        make = self._chat if path == CHAT else self._completion
        made = await make(scope, server, prompt, fields)
        answers = Answers(prompt, server.served)
        if fields.get("stream"):
            out = asgi.changing_events(send, answers.event)
        else:
            out = asgi.changing(send, answers.whole)
        return json.dumps(made).encode(), out

    async def _completion(
        self, scope: Scope, server: _Server, prompt: Prompt, fields: dict[str, Any]
    ) -> dict[str, Any]:
        rows = rows_of(fields, prompt)
        most = answer_tokens(fields, prompt)
        tokens = await asyncio.gather(*(self._tokens(scope, server, prompt, row) for row in rows))
        for one in tokens:
            check_room(prompt, len(one), most, server.context)
        return {**rewritten(fields, prompt, server.served), "prompt": tokens}

    async def _chat(
        self, scope: Scope, server: _Server, prompt: Prompt, fields: dict[str, Any]
    ) -> dict[str, Any]:
        messages = messages_of(fields, prompt)
        made = {**rewritten(fields, prompt, server.served), "messages": messages}
        what = {name: made[name] for name in _TEMPLATE_FIELDS if name in made}
        tokens = await self._tokenized(scope, server, what)
        check_room(prompt, len(tokens), answer_tokens(fields, prompt), server.context)
        return made

    async def _tokens(self, scope: Scope, server: _Server, prompt: Prompt, row: Row) -> list[int]:
        """The tokens of an input, by the server's own tokenizer."""
        if row.tokens is not None:
            return row.tokens
        if row.messages is not None:
            options = {"chat_template_kwargs": dict(prompt.chat_options)}
            what = {"messages": row.messages, **(options if prompt.chat_options else {})}
            return await self._tokenized(scope, server, what)
        text = {"prompt": row.text, "add_special_tokens": False}
        return [*prompt.leading, *await self._tokenized(scope, server, text)]

    async def _tokenized(self, scope: Scope, server: _Server, what: dict[str, Any]) -> list[int]:
        status, content = await asgi.call(
            self.app, scope, "POST", "/tokenize", {"model": server.served, **what}
        )
        if status != 200:
            raise _Answered(status, content)
        tokens: list[int] = content["tokens"]
        return tokens

    async def _check_tokenizer(self, scope: Scope, server: _Server, prompt: Prompt) -> None:
        """Raise PromptError where the server makes other tokens of a text than training did; a
        prompt that is served once fits until it is replaced."""
        key = prompt.sha256, prompt.sample[1]
        if key in self._fitting:
            return
        tokens = await self._tokens(scope, server, prompt, sample_of(prompt))
        if tuple(tokens) != prompt.sample[1]:
            raise PromptError(
                f"the tokenizer of '{server.served}' makes other tokens of a text than the one "
                f"that '{prompt.name}' was trained with; serve it with its own tokenizer"
            )
        self._fitting.add(key)

    async def _admit(self, scope: Scope) -> None:
        """Raise _Answered where the server behind does not let the request's sender in."""
        if not _asks_for_keys(scope["app"].state):
            return
        status, content = await asgi.call(self.app, scope, "GET", "/v1/models")
        if status != 200:
            raise _Answered(status, content)

    async def _refuse(self, scope: Scope, send: Send, wrong: Wrong) -> None:
        try:
            await self._admit(scope)
        except _Answered as answered:
            await asgi.answer(send, answered.status, answered.content)
            return
        message = str(wrong)
        await asgi.answer(send, 400, error(400, message, message.partition(":")[0]))


def _with_prompts(server: _Server, body: bytes) -> bytes:
    """The list of models with the prompts behind them."""
    models = json.loads(body)
    for name in server.folder.names():
        try:
            prompt = server.prompt(name)
        except PromptError:  # the answer to a request for it says that it is damaged
            continue
        if prompt is not None:
            models["data"].append(as_model(prompt, server.served, server.context))
    return json.dumps(models, ensure_ascii=False).encode()


def _asks_for_keys(state: Any) -> bool:
    keys = getattr(state.args, "api_key", None) or [os.environ.get("VLLM_API_KEY")]
    return any(keys)


def _may_choose(body: bytes) -> bool:
    """Whether a body may hold one of the reserved fields, however its JSON is written."""
    return b"_transfer_params" in body or b"\\u" in body or b"\0" in body


def _parsed(body: bytes) -> Any:
    """A body's JSON; None where it is none, which vLLM answers.

    Raises:
        Wrong: it has a reserved field.
    """

    def checked(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        for name, value in pairs:
            if name in RESERVED and value is not None:
                raise Wrong(f'{name}: is set by the server; name a prompt as "model"')
        return dict(pairs)

    try:
        return json.loads(body, object_pairs_hook=checked)
    except Wrong:
        raise
    except (ValueError, RecursionError):
        return None
