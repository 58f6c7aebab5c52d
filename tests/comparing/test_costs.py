"""The memory of a run counts what earlier runs have freed."""

import sys
import time

import pytest
import torch

from foreword.comparing.executing import measured_cost

PIECE, PIECES = 100_000, 400
"""Bytes of a tensor, below what the C library maps by itself, and how many of them."""


@pytest.mark.skipif(sys.platform != "linux", reason="other C libraries keep what is freed")
@pytest.mark.skipif(torch.cuda.is_available(), reason="torch counts the bytes of a GPU")
def test_a_second_run_takes_as_much_as_the_first() -> None:
    peaks, kept = [], []
    for _ in range(3):
        with measured_cost() as cost:
            pieces = [torch.ones(PIECE, dtype=torch.uint8) for _ in range(PIECES)]
            kept.append(torch.ones(PIECE, dtype=torch.uint8))  # above what is freed
            time.sleep(0.3)  # longer than the watcher's pause
            del pieces
        peaks.append(cost.peak_bytes)
    assert min(peaks) > 0.8 * PIECE * PIECES
