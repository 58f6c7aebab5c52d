"""Work in several processes, each of which begins with all that this one has in memory."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import signal
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

R = TypeVar("R")
Told = Callable[[int], None]
LEAST = 2**14
"""Items from which a process of its own is worth its start."""
MOST = 32
_SECONDS = 0.5


def processes(items: int) -> int:
    """How many processes so many items are worth, on the processors that this one may use."""
    ours = multiprocessing.current_process()
    if sys.platform != "linux" or ours.daemon:
        return 1
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1") or 1)
    return max(1, min(len(os.sched_getaffinity(0)) // beside, items // LEAST, MOST))


def parts(items: int, count: int) -> list[tuple[int, int]]:
    """Where each of so many shares of some items begins and ends."""
    return [(items * number // count, items * (number + 1) // count) for number in range(count)]


def in_shares(count: int, work: Callable[[int, Told], R], advance: Told) -> list[R]:
    """What is made of each share, in their order.

    Args:
        count: how many shares there are, each in a process of its own; one is made in this process.
        work: makes a share by its number, and tells how many items are done. What it returns and
            raises goes from process to process; what it changes stays in its own.
        advance: told how many items are done.

    Raises:
        Exception: what the first share in their order raised that failed.
    """
    if count == 1:
        return [work(0, advance)]
    context: Any = multiprocessing.get_context("fork")
    done, known = context.Value("q", 0), 0
    open_ends: dict[Connection, int] = {}
    members = []
    made: dict[int, Any] = {}
    failed: dict[int, Exception] = {}
    try:
        for number in range(count):
            receiving, sending = context.Pipe(duplex=False)
            member = context.Process(target=_run, args=(work, number, sending, done), daemon=True)
            with warnings.catch_warnings():
                # Of the threads that Python warns of, a share needs none.
                warnings.filterwarnings("ignore", category=DeprecationWarning)
                member.start()
            sending.close()
            members.append(member)
            open_ends[receiving] = number
        while open_ends and not any(all(i in made for i in range(bad)) for bad in failed):
            for end in wait(list(open_ends), _SECONDS):
                number = open_ends.pop(end)  # type: ignore[call-overload]
                result = _received(end)  # type: ignore[arg-type]
                if isinstance(result, _Made):
                    made[number] = result.value
                elif isinstance(result, Exception):
                    failed[number] = result
                else:  # the process is gone, or what it raised cannot be sent
                    made[number] = work(number, lambda _: None)
            now = int(done.get_obj().value)  # without the lock, which a share that died may hold
            advance(now - known)
            known = now
    finally:
        for member in members:
            member.kill()  # a handler for SIGTERM that it began with would keep it alive
            member.join()
    if failed:
        raise failed[min(failed)]
    return [made[number] for number in range(count)]


class _Made:
    def __init__(self, value: Any) -> None:
        self.value = value


def _received(end: Connection) -> Any:
    try:
        return end.recv()
    except (EOFError, OSError, pickle.UnpicklingError, TypeError, ValueError, AttributeError):
        return None
    finally:
        end.close()


def _run(work: Callable[[int, Told], Any], number: int, end: Connection, done: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that waits for it ends it
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    gc.freeze()

    def advance(count: int) -> None:
        with done.get_lock():
            done.value += count

    try:
        end.send(_Made(work(number, advance)))
    except Exception as error:
        with suppress(
            Exception
        ):  # one that cannot be sent: the share is made where it can be raised
            end.send(error)
    finally:
        end.close()
