"""Shares of work: all of them are made, in their order, whatever becomes of a process."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from typing import Any

import pytest

from foreword.common import shares
from foreword.common.shares import in_shares, parts, processes
from foreword.errors import DataError


def test_parts_are_all_of_it() -> None:
    for items in (0, 1, 7, 100):
        for count in (1, 2, 7):
            bounds = parts(items, count)
            assert [n for begin, end in bounds for n in range(begin, end)] == list(range(items))


def test_processes_by_items_and_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)))
    assert [processes(n * shares.LEAST) for n in (0, 1, 3, 100)] == [1, 1, 3, 6]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    assert processes(100 * shares.LEAST) == 2
    monkeypatch.setattr(shares.sys, "platform", "darwin")
    assert processes(100 * shares.LEAST) == 1


@pytest.mark.parametrize("count", [1, 3])
def test_results_in_order_and_what_is_done(count: int) -> None:
    told: list[int] = []

    def work(number: int, advance: Any) -> tuple[int, int]:
        time.sleep(0.05 * (count - number))
        advance(number + 1)
        return number, os.getpid()

    made = in_shares(count, work, told.append)
    assert [number for number, _ in made] == list(range(count))
    assert len({process for _, process in made}) == count
    assert (os.getpid() in {process for _, process in made}) is (count == 1)
    assert sum(told) == sum(range(count + 1))


def test_the_first_failure_in_order_is_raised() -> None:
    def work(number: int, advance: Any) -> int:
        if number == 1:
            time.sleep(0.2)
        if number:
            raise DataError(f"line {number}")
        return number

    with pytest.raises(DataError, match="line 1"):
        in_shares(3, work, lambda _: None)


def test_a_process_that_is_gone_and_an_error_that_cannot_be_sent() -> None:
    """Such a share is made in this process, which raises what it raises."""
    ours = os.getpid()

    class Unsendable(Exception):
        def __reduce__(self) -> Any:
            raise TypeError("not to be sent")

    def work(number: int, advance: Any) -> int:
        if number == 1 and os.getpid() != ours:
            os._exit(9)
        if number == 2 and failing:
            raise Unsendable
        return number

    failing = False
    assert in_shares(3, work, lambda _: None) == [0, 1, 2]
    failing = True
    with pytest.raises(Unsendable):
        in_shares(3, work, lambda _: None)


def test_an_interruption_ends_the_others() -> None:
    """At once, whatever they do with SIGTERM."""

    def interrupted(count: int) -> None:
        raise KeyboardInterrupt

    def slow(number: int, advance: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(60 * number)

    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        in_shares(2, slow, interrupted)
    assert multiprocessing.active_children() == []
    assert time.monotonic() - begun < 50
