"""What a server serves: everything that answering a request needs."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from typing import Any

from foreword.errors import ArtifactError, BusyError
from foreword.serving.compositions import Compositions
from foreword.serving.engine import Engine
from foreword.serving.following import Followed
from foreword.serving.http.access import Access, Holder
from foreword.serving.http.errors import Refusal
from foreword.serving.http.metrics import Metrics
from foreword.serving.http.tracing import Tracing
from foreword.serving.prompts import PromptStore
from foreword.serving.service import Model, Service
from foreword.serving.spec import ServeSpec
from foreword.serving.uploads import Uploads
from foreword.serving.versions import Versions

_log = logging.getLogger("foreword.serving")
FREED = 0.02
"""Seconds after which a request looks again whether memory for its prompt is free."""


@dataclass(eq=False)
class Served:
    """A server's parts.

    Attributes:
        spec: how it is run.
        service: makes work of requests.
        engine: does it.
        store: the prompts.
        versions: those that are kept on this machine while the server runs.
        compositions: those that are put together of others.
        access: the keys.
        metrics: the numbers.
        tracing: the spans.
        uploads: the prompts that came over HTTP; None where none are taken.
        followed: the folder or store of prompts; None where there is none.
        draining: whether it is stopping.
    """

    spec: ServeSpec
    service: Service
    engine: Engine
    store: PromptStore
    versions: Versions
    compositions: Compositions
    access: Access
    metrics: Metrics
    tracing: Tracing = field(default_factory=Tracing)
    uploads: Uploads | None = None
    followed: Followed[Any] | None = None
    draining: bool = False

    def check_may_use(self, holder: Holder, name: str) -> None:
        """Make sure that a key may use a name and that there is something of that name; what the
        key may not use is refused whether it is there or not.

        Raises:
            Refusal: 403 or 404.
        """
        if not holder.may_use(name):
            raise Refusal(
                403,
                f"model: this key may not use '{name[:128]}'",
                param="model",
                code="model_not_allowed",
            )
        if name != self.service.name and name not in self.store:
            raise Refusal(
                404,
                f"model: there is no '{name[:128]}' here; GET /v1/models lists those that there "
                "are",
                param="model",
                code="model_not_found",
            )

    async def model(self, holder: Holder, name: str) -> Model:
        """What a key asks, as soon as there is room for it in memory.

        Raises:
            Refusal: 403, 404; or 503, its artifact cannot be read any more.
            BusyError: there is no room for as long as a request may take.
        """
        end = time.monotonic() + self.spec.timeout
        while True:
            try:
                return await asyncio.to_thread(self._model, holder, name)
            except BusyError:
                if time.monotonic() > end:
                    raise
            await asyncio.sleep(FREED)

    def _model(self, holder: Holder, name: str) -> Model:
        self.check_may_use(holder, name)
        try:
            return self.service.model(name)
        except ArtifactError as error:
            _log.error("the prompt '%s' cannot be read: %s", name, error)
            raise Refusal(
                503, f"model: '{name}' cannot be read at the moment", param="model"
            ) from error

    def names(self, holder: Holder) -> list[str]:
        """The names that a key may use."""
        return [name for name in (self.service.name, *self.store) if holder.may_use(name)]
