"""One HTTP request and the engine: its jobs, what comes of them, and a client that may leave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from foreword.backbone import Telling, Written
from foreword.common.characters import to_json
from foreword.serving.engine import Engine
from foreword.serving.http.errors import Refusal, refusal_of
from foreword.serving.jobs import Job, Told
from foreword.tasks import Request as Reading
from foreword.tasks import Writing

GONE = 499
"""The status under which requests are counted whose client has left."""
LAST_WORD = 1.0
"""Seconds in which a client that was too slow may read that it was."""
T = TypeVar("T")
Event = tuple[int, Written | Told]
"""Which of a request's jobs, and what is told of it."""


@asynccontextmanager
async def exchange(
    engine: Engine, works: Sequence[Writing | Reading], telling: Telling
) -> AsyncIterator[AsyncIterator[Event]]:
    """What an engine tells of some jobs; those that have no end when the block is left are
    cancelled.

    Raises:
        BusyError, UserError: the engine does not take them on.
    """
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[Event] = asyncio.Queue()
    open_: set[int] = set(range(len(works)))

    def listener(number: int) -> Callable[[Written | Told], None]:
        def tell(event: Written | Told) -> None:
            with suppress(RuntimeError):  # the loop has ended, and nobody listens
                loop.call_soon_threadsafe(queue.put_nowait, (number, event))

        return tell

    async def events() -> AsyncIterator[Event]:
        while open_:
            number, event = await queue.get()
            error = event.error
            if isinstance(event, Told) or event.ended is not None:
                open_.discard(number)
            if error is not None:
                raise error
            yield number, event

    jobs = [Job(work, listener(number), telling) for number, work in enumerate(works)]
    tickets = await asyncio.to_thread(engine.submit, jobs)
    try:
        yield events()
    finally:
        for number in open_:
            engine.cancel(tickets[number])


async def unless_gone(request: Request, work: Coroutine[Any, Any, T], seconds: float) -> T | None:
    """What some work gives; it is ended where the client leaves, or after so many seconds.

    Returns:
        None where the client has left.

    Raises:
        Refusal: 503, it took too long.
    """
    working, watching = asyncio.create_task(work), asyncio.create_task(_gone(request.receive))
    try:
        async with _both(working, watching):
            done, _ = await asyncio.wait(
                (working, watching), timeout=seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if working in done:
                return working.result()
            if not done:
                raise _too_long(seconds)
            return None
    finally:
        work.close()


@asynccontextmanager
async def _both(*tasks: asyncio.Task[Any]) -> AsyncIterator[None]:
    """Tasks that end with the block."""
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    """Ends when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _too_long(seconds: float) -> Refusal:
    message = f"the request took more than the {seconds:g} seconds that it may take"
    return Refusal(503, message, code="timeout", retry_after=1)


class EventStream(Response):
    """Server-sent events, each JSON, and `[DONE]` at the end.

    A client that leaves ends it, and so do the seconds that a request may take; an error is told as
    an event.

    Args:
        pieces: gives what the events hold.
        seconds: it may take.
        stack: what is left when it has ended, however that was.

    Attributes:
        ended: the status that an answer in one piece would have had, once it has ended.
    """

    media_type = "text/event-stream"

    def __init__(
        self, pieces: AsyncIterator[dict[str, Any]], seconds: float, stack: AsyncExitStack
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self.pieces, self.seconds, self.stack = pieces, seconds, stack
        self.ended = GONE

    async def __call__(
        self,
        scope: Scope,  # noqa: ARG002
        receive: Receive,
        send: Send,
    ) -> None:
        """Send it all."""
        async with self.stack:
            sending = asyncio.create_task(self._send(send))
            watching = asyncio.create_task(_gone(receive))
            async with _both(sending, watching):
                tasks = (sending, watching)
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                if sending.done():
                    with suppress(OSError):  # what a server may raise where the client has left
                        sending.result()

    async def _send(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        last = "[DONE]"
        try:
            async with asyncio.timeout(self.seconds):
                async for piece in self.pieces:
                    await send(_event(to_json(piece)))
            ended = 200
        except TimeoutError:
            refusal = _too_long(self.seconds)
            last, ended = to_json(refusal.body), refusal.status
        except Exception as error:
            refusal = refusal_of(error)
            last, ended = to_json(refusal.body), refusal.status
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORD):
                await send(_event(last))
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                self.ended = ended


def _event(text: str) -> dict[str, Any]:
    return {"type": "http.response.body", "body": f"data: {text}\n\n".encode(), "more_body": True}
