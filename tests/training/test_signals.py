"""The first signal asks, the second one does what it always does."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from foreword.training.signals import Stop, Stopped, stop_on_signals

BOTH = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    before = [signal.getsignal(number) for number in BOTH]
    yield
    assert [signal.getsignal(number) for number in BOTH] == before


@pytest.mark.parametrize("number", BOTH)
def test_patient_work_is_asked(number: signal.Signals) -> None:
    with stop_on_signals() as stop, stop.patiently():
        stop.check()
        os.kill(os.getpid(), number)
        assert stop.requested == number
        with pytest.raises(Stopped, match=f"stopped by {number.name}") as raised:
            stop.check()
    assert raised.value.exit_status == {signal.SIGINT: 130, signal.SIGTERM: 143}[number]
    assert isinstance(raised.value, KeyboardInterrupt)


@pytest.mark.parametrize("number", BOTH)
def test_other_work_ends_at_once(number: signal.Signals) -> None:
    with pytest.raises(Stopped), stop_on_signals():
        os.kill(os.getpid(), number)


def test_a_second_ctrl_c_is_immediate() -> None:
    with stop_on_signals() as stop, stop.patiently():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt) as raised:
            os.kill(os.getpid(), signal.SIGINT)
    assert not isinstance(raised.value, Stopped)


def test_what_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stop_on_signals() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.requested is None
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_install_nothing() -> None:
    before, seen = [signal.getsignal(number) for number in BOTH], list[Any]()

    def work() -> None:
        with stop_on_signals() as stop:
            seen.extend([stop.requested, *(signal.getsignal(number) for number in BOTH)])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [None, *before]


def test_nobody_asks() -> None:
    Stop().check()
