"""Keeps transformers' loading bars and advice off the terminal for a moment."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import logging

_changing = threading.Lock()
_before: list[tuple[int, bool]] = []
"""Verbosity and bars as the process had them, once for each `quiet()` that lasts."""


@contextmanager
def quiet() -> Iterator[None]:
    """Only errors are logged.

    Verbosity and bars belong to the whole process. The first of several threads that are in here at
    a time turns them down, and the last one that leaves brings back what was there.
    """
    with _changing:
        now = (logging.get_verbosity(), logging.is_progress_bar_enabled())
        _before.append(_before[0] if _before else now)
        logging.set_verbosity_error()
        logging.disable_progress_bar()
    try:
        yield
    finally:
        with _changing:
            level, bars = _before.pop()
            if not _before:
                logging.set_verbosity(level)
                if bars:
                    logging.enable_progress_bar()
