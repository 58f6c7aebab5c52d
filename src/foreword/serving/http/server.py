"""A server from its settings: loads, listens, and drains when it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from difflib import get_close_matches
from math import ceil
from pathlib import Path
from typing import Any

import uvicorn

from foreword.artifacts.joined import JOIN, has_artifact, parts_of
from foreword.backbone import Backbone, default_device, load_backbone
from foreword.errors import ArtifactError, UserError, did_you_mean
from foreword.serving.compositions import Compositions, Part
from foreword.serving.engine import Engine
from foreword.serving.following import Followed, PromptFolder
from foreword.serving.http.access import Access
from foreword.serving.http.app import make_app
from foreword.serving.http.exchange import LAST_WORD
from foreword.serving.http.metrics import Metrics
from foreword.serving.http.served import Served
from foreword.serving.http.tracing import tracing
from foreword.serving.prompts import PromptStore
from foreword.serving.remote import RemotePrompts, add_remote
from foreword.serving.service import Service
from foreword.serving.spec import ServeSpec
from foreword.serving.uploads import Uploads
from foreword.serving.versions import Versions
from foreword.session import refuse_two_places

THREADS = 32

_log = logging.getLogger("foreword.serving")


def load(spec: ServeSpec, *, trust_remote_code: bool = False) -> Backbone:
    """The backbone of a server.

    Args:
        spec: says which, and how.
        trust_remote_code: run code that comes with it.

    Raises:
        BackboneError: it cannot be loaded.
        UserError: a device and a device map are given.
    """
    refuse_two_places(spec.device, spec.device_map)
    backbone = load_backbone(
        spec.backbone,
        dtype=spec.dtype,
        device=spec.device or default_device(),
        quantization=spec.quantization,
        device_map=spec.device_map,
        local_files_only=not spec.download,
        trust_remote_code=trust_remote_code,
    )
    if backbone.slowness is not None:
        _log.warning("%s", backbone.slowness)
    return backbone


def prepare(spec: ServeSpec, backbone: Backbone) -> Served:
    """A server's parts, its prompts loaded and its engine running.

    Raises:
        UserError: a prompt that is named cannot be served, or a package is missing.
    """
    name = spec.backbone_name
    traced = tracing(spec.traces)
    store = PromptStore(
        backbone,
        memory=spec.memory,
        largest=spec.largest,
        other_backbone=spec.other_backbone,
        reserved=(name,),
    )
    versions = Versions(store)
    compositions = Compositions(versions)
    try:
        followed = _followed(spec, store, versions)
        uploads = None if spec.uploads is None else Uploads(spec.uploads, store)
        _add_all(spec, compositions, followed, uploads)
        engine = Engine(backbone, spec.engine)
    except BaseException:
        versions.close()
        raise
    service = Service(backbone, name, store, longest=engine.longest, most=spec.max_tokens)
    access, metrics = Access(spec.keys), Metrics(engine, store, name, followed)
    if followed is not None and spec.refresh is not None:
        followed.follow(spec.refresh, metrics.forget, compositions.renew)
    return Served(
        spec=spec,
        service=service,
        engine=engine,
        store=store,
        versions=versions,
        compositions=compositions,
        access=access,
        metrics=metrics,
        tracing=traced,
        uploads=uploads,
        followed=followed,
    )


def _followed(spec: ServeSpec, store: PromptStore, versions: Versions) -> Followed[Any] | None:
    if spec.prompts is None:
        return None
    if isinstance(spec.prompts, str):
        return RemotePrompts(spec.prompts, store, versions)
    return PromptFolder(spec.prompts, store)


def _add_all(
    spec: ServeSpec,
    compositions: Compositions,
    followed: Followed[Any] | None,
    uploads: Uploads | None,
) -> None:
    """Register what there is when a server starts. Of several prompts of one name that which was
    uploaded is served, or else that of `prompt`, or else that of `prompts`."""
    store, versions = compositions.store, compositions.versions
    together: dict[str, Path] = {}
    for name, place in spec.prompt.items():
        if isinstance(place, str):
            add_remote(name, place, versions)
        elif JOIN in str(place) and not has_artifact(place):
            store.check_name(name)
            together[name] = place
        else:
            store.add(name, place)
    if followed is not None:
        followed.look()
    uploaded = set()
    for name, folder in uploads.kept().items() if uploads is not None else ():
        try:
            store.add(name, folder)
            uploaded.add(name)
        except (ArtifactError, UserError) as error:
            _log.warning("the prompt '%s' is left out: %s", name, error)
    for name, place in together.items():
        if name not in uploaded:
            compositions.add(name, _parts(store, name, place))


def _parts(store: PromptStore, name: str, given: Path) -> list[Part]:
    """What `A+B` names: folders, and where there is none prompts that are served.

    Raises:
        UserError: one is neither.
    """
    parts: list[Part] = []
    for part in parts_of(given, lambda one: has_artifact(Path(one)) or one in store):
        if has_artifact(part):
            parts.append(part)
        elif str(part) in store:
            parts.append(str(part))
        else:
            close = get_close_matches(str(part), tuple(store), n=1)
            raise UserError(
                f"prompt.{name}: '{part}' of '{given}' is neither a folder with an artifact nor a "
                f"prompt that is served here{did_you_mean(str(part), close)}"
            )
    return parts


class Server(uvicorn.Server):
    """uvicorn that says when it listens, and leaves signals to us.

    Args:
        served: what is served.
        ready: called with the port when requests are taken on.
    """

    def __init__(self, served: Served, ready: Callable[[int], None] = lambda _: None) -> None:
        super().__init__(
            uvicorn.Config(
                make_app(served),
                log_config=None,
                access_log=False,
                lifespan="off",
                server_header=False,
                timeout_graceful_shutdown=ceil(served.spec.drain + 2 * LAST_WORD),
            )
        )
        self.served, self.ready = served, ready

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say where."""
        await super().startup(sockets)
        if self.started:
            self.ready(self.servers[0].sockets[0].getsockname()[1])

    def stop(self) -> None:
        """Take nothing on any more, and end when all is answered; asked again, at once."""
        self.force_exit = self.served.draining
        self.served.draining = self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen no more, and have what is under way end, with an error where it takes longer than
        it may."""
        engine = self.served.engine
        closing = asyncio.create_task(asyncio.to_thread(engine.close, self.served.spec.drain))
        await super().shutdown(sockets)
        await asyncio.to_thread(engine.close)
        await closing

    async def run_until_stopped(self) -> None:
        """Serve, and close the engine at the end.

        Raises:
            UserError: the address cannot be listened on.
        """
        spec = self.served.spec
        threads = ThreadPoolExecutor(THREADS, "foreword")  # some wait for a prompt to be read
        asyncio.get_running_loop().set_default_executor(threads)
        family = socket.AF_INET6 if ":" in spec.host else socket.AF_INET
        try:
            listening = socket.create_server((spec.host, spec.port), family=family)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise UserError(
                f"host: cannot listen on {spec.host} port {spec.port}: {reason}"
            ) from error
        try:
            await self.serve(sockets=[listening])
        finally:
            listening.close()
            if self.served.followed is not None:
                self.served.followed.close()
            await asyncio.to_thread(self.served.engine.close)
            self.served.versions.close()


async def serve(served: Served, ready: Callable[[int], None] = lambda _: None) -> None:
    """Serve until SIGTERM or SIGINT; answers that are under way then end, in the time that they may
    take, and nothing is taken on any more.

    Args:
        served: what is served.
        ready: called with the port when requests are taken on.

    Raises:
        UserError: the address cannot be listened on.
    """
    server, loop = Server(served, ready), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop)
    try:
        await server.run_until_stopped()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
