"""`foreword serve`."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foreword.cli import options as o
from foreword.cli.loading import loading_options
from foreword.cli.output import complain, emit
from foreword.common.characters import to_json
from foreword.common.limits import MOST_ROWS
from foreword.errors import UserError

if TYPE_CHECKING:
    from foreword.serving.spec import ServeSpec

KEY = "FOREWORD_API_KEY"
"""The environment variable that holds the key of a server with one key."""


@dataclass(frozen=True)
class ServeFlags(o.ArtifactFlags):
    """The settings of a server, named as in its configuration file."""

    name: Annotated[str | None, typer.Option("--name", help="The backbone's name for clients.")] = (
        None
    )
    prompts: Annotated[
        str | None,
        typer.Option(
            "--prompts",
            metavar="FOLDER",
            help="A folder, or URL (s3://…), of artifacts or runs, each called as its own.",
        ),
    ] = None
    refresh: Annotated[
        float | None,
        typer.Option(
            "--refresh", help="Seconds after which --prompts is looked at again. Default: never."
        ),
    ] = None
    roots: Annotated[
        list[Path] | None,
        typer.Option("--roots", help="A folder from which prompts may be added over HTTP."),
    ] = None
    uploads: Annotated[
        Path | None, typer.Option("--uploads", help="Take prompts over HTTP, and keep them here.")
    ] = None
    host: Annotated[str | None, typer.Option("--host", help="Default: 127.0.0.1.")] = None
    port: Annotated[
        int | None,
        typer.Option("--port", min=0, max=65535, help="Default: 8000; 0 takes a free one."),
    ] = None
    rows: Annotated[
        int | None,
        typer.Option(
            "--rows", min=1, max=MOST_ROWS, help="Answers written at the same time. Default: 32."
        ),
    ] = None
    tokens: Annotated[
        int | None,
        typer.Option(
            "--tokens",
            min=1,
            max=10**7,
            help="Positions that they may take together. Default: a quarter of the memory.",
        ),
    ] = None
    longest: Annotated[
        int | None,
        typer.Option(
            "--longest",
            min=1,
            max=10**7,
            help="Positions of one. Default: the backbone's context, at most 8192.",
        ),
    ] = None
    chunk: Annotated[
        int | None,
        typer.Option(
            "--chunk",
            min=1,
            max=10**7,
            help="Tokens of inputs read in a step, so that long ones stall nobody. Default: 256.",
        ),
    ] = None
    packed: Annotated[
        bool | None,
        typer.Option(
            "--packed/--no-packed",
            help="On a CPU, lay out float32 weights a second time: faster, and as much more memory."
            " Default: where that is no more than a quarter of it.",
        ),
    ] = None
    queue: Annotated[
        int | None,
        typer.Option("--queue", min=1, max=MOST_ROWS, help="Requests that may wait. Default: 256."),
    ] = None
    memory: Annotated[
        int | None,
        typer.Option("--memory", min=0, help="Bytes that prompts may take. Default: 1 GiB."),
    ] = None
    largest: Annotated[
        int | None,
        typer.Option("--largest", min=0, help="Bytes of a prompt's files. Default: 256 MiB."),
    ] = None
    body: Annotated[
        int | None,
        typer.Option("--body", min=0, help="Bytes of a request's body. Default: 32 MiB."),
    ] = None
    max_tokens: Annotated[
        int | None,
        typer.Option("--max-tokens", min=1, max=10**7, help="Tokens that an answer may have."),
    ] = None
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", help="Seconds that a request may take. Default: 600."),
    ] = None
    drain: Annotated[
        float | None,
        typer.Option("--drain", help="Seconds for answers after SIGTERM. Default: 30."),
    ] = None
    traces: Annotated[
        bool | None,
        typer.Option("--traces", help="OpenTelemetry traces, as OTEL_… variables say."),
    ] = None


@o.with_flags
def serve(
    base: Annotated[
        str | None,
        typer.Argument(metavar="BACKBONE", help="A folder, a hub name, or foreword/…"),
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            "--prompt",
            metavar="NAME=ARTIFACT",
            help="A prompt, a folder or its URL or A+B, and its name; may be repeated.",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="Settings as YAML, named as the flags."),
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option("--keys", metavar="FILE", help=f"Keys as YAML; or one in {KEY}."),
    ] = None,
    *,
    on: ServeFlags,
    try_: Annotated[
        str | None,
        typer.Option("--try", metavar="TEXT", help="Ask the first prompt this over HTTP."),
    ] = None,
) -> None:
    """Serve one backbone and many prompts over HTTP, as OpenAI's API."""
    from foreword.serving.spec import read_spec

    try:
        from foreword.serving.http import server
    except ModuleNotFoundError as error:
        if error.name not in ("fastapi", "uvicorn", "prometheus_client", "starlette"):
            raise
        raise UserError(
            f"serve: needs {error.name}, which is not installed; pip install 'foreword[serve]'"
        ) from error
    import asyncio
    import logging

    spec = read_spec(config, _flags(base, prompt, keys, on))
    logging.basicConfig(level=logging.WARNING, format="foreword: %(message)s")
    logging.getLogger("foreword.serving").setLevel(logging.INFO)
    served = server.prepare(spec, server.load(spec, trust_remote_code=on.trust_remote_code))

    def ready(port: int) -> None:
        host = f"[{spec.host}]" if ":" in spec.host else spec.host
        many = len(served.store)
        complain(
            f"foreword: serving '{served.service.name}' with {many:,} "
            f"{'prompt' if many == 1 else 'prompts'} on "
            f"http://{host}:{port} ({spec.rows} answers of {served.engine.longest:,} positions, "
            f"{served.engine.tokens:,} positions together)"
        )
        if try_ is not None:
            name = next(iter(served.store), served.service.name)
            threading.Thread(target=_try, args=(spec, port, name, try_), daemon=True).start()

    asyncio.run(server.serve(served, ready))


def _flags(
    base: str | None, prompts: list[str] | None, keys: Path | None, on: ServeFlags
) -> dict[str, Any]:
    """The flags that are given, by the names of settings."""
    if base is not None and on.backbone is not None:
        raise UserError(f"--backbone: '{on.backbone}', but BACKBONE is given, too: '{base}'")
    own = {one.name for one in fields(ServeFlags)} - {one.name for one in fields(o.ArtifactFlags)}
    loading = {name: value for name, value in loading_options(on).items() if value is not False}
    loading.pop("trust_remote_code", None)
    given = {name: getattr(on, name) for name in own} | loading
    given["backbone"] = on.backbone if base is None else base
    flags = {name: value for name, value in given.items() if value is not None}
    if on.other_backbone:
        flags["other_backbone"] = True
    if prompts:
        flags["prompt"] = _named(prompts)
    if keys is not None:
        flags["keys"] = _keys(keys)
    elif KEY in os.environ:
        if not os.environ[KEY]:
            raise UserError(
                f"{KEY}: is set, and empty; give it a key, or unset it and everybody may ask all"
            )
        flags["keys"] = [{"name": "key", "key": os.environ[KEY], "admin": True}]
    return flags


def _named(prompts: list[str]) -> dict[str, str]:
    named: dict[str, str] = {}
    for given in prompts:
        name, equals, folder = given.partition("=")
        if not (name and equals and folder):
            raise UserError(f"--prompt: expected NAME=ARTIFACT, found '{given}'")
        if name in named:
            raise UserError(f"--prompt: the name '{name}' is given twice; give each its own")
        named[name] = folder
    return named


def _keys(file: Path) -> Any:
    from foreword.common import opening
    from foreword.recipe.yaml_text import parse_yaml

    try:
        return parse_yaml(opening.read_text(file))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"--keys: {file}: cannot be read: {reason}") from error


def _try(spec: ServeSpec, port: int, name: str, text: str) -> None:
    """Ask the server that runs here, and print its answer and how long it took."""
    from foreword.serving.http.trying import ask

    key = next((one.key for one in spec.keys if one.key is not None), None)
    try:
        emit(to_json(ask(spec.host, port, name, text, key)) + "\n")
    except Exception as error:
        complain(f"foreword: --try: {error}")
