"""What a run took: its memory, and the steps until most of what training gained was there."""

import math
import subprocess
import sys

import pytest
import torch

from foreword.comparing.costs import steps_to_share

SEVERAL_RUNS = """
import time
import torch
from foreword.comparing.executing import measured_cost

PIECE, PIECES = 100_000, 400  # bytes of a tensor, less than what the C library maps by itself
kept = []
for _ in range(3):
    with measured_cost() as cost:
        pieces = [torch.ones(PIECE, dtype=torch.uint8) for _ in range(PIECES)]
        kept.append(torch.ones(PIECE, dtype=torch.uint8))  # above what is freed
        time.sleep(0.5)  # longer than the watcher's pause
        del pieces
    print(cost.peak_bytes / (PIECE * PIECES))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other C libraries keep what is freed")
@pytest.mark.skipif(torch.cuda.is_available(), reason="torch counts the bytes of a GPU")
def test_a_second_run_takes_as_much_as_the_first() -> None:
    """In a process that holds nothing of other tests, which may be freed meanwhile."""
    done = subprocess.run(
        [sys.executable, "-c", SEVERAL_RUNS], capture_output=True, text=True, check=True
    )
    shares = [float(line) for line in done.stdout.split()]
    assert len(shares) == 3
    assert min(shares) > 0.8


@pytest.mark.parametrize(
    ("metric", "values", "step"),
    [
        ("loss", [4.0, 3.0, 2.0, 2.01], 20),
        ("mse", [9.0, 2.0, 1.0, 1.5], 20),
        ("ter", [120.0, 100.0, 99.9, 130.0], 10),
        ("accuracy", [50.0, 60.0, 89.0, 90.0], 20),
        ("pearson", [-0.9, -0.5, -0.2, -0.3], 20),
        ("matthews", [-0.4, -0.5, -0.6, -0.7], 0),
        ("pearson", [math.nan, 0.1, 0.5, 0.2], 20),
        ("pearson", [0.1, None, None, None], None),
    ],
)
def test_most_of_what_training_gained(
    metric: str, values: list[float | None], step: int | None
) -> None:
    evaluations = [{"step": 10 * i, metric: value} for i, value in enumerate(values)]
    assert steps_to_share(evaluations, metric) == step
