"""Random states go out and come back through what a checkpoint can hold."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from foreword.training import randomness


def draw() -> list[float]:
    return [
        random.random(),
        random.gauss(0, 1),
        float(np.random.normal()),
        float(np.random.random()),
        torch.rand(1).item(),
        torch.randn(17).sum().item(),
    ]


@pytest.mark.parametrize("before", [0, 1, 1000])
def test_round_trip(before: int) -> None:
    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)
    for _ in range(before):
        draw()
    tensors, values = randomness.capture()
    expected = [draw() for _ in range(5)]
    stored = save(tensors), json.dumps(values, allow_nan=False)
    assert [draw() for _ in range(5)] != expected
    randomness.restore(load(stored[0]), json.loads(stored[1]))
    assert [draw() for _ in range(5)] == expected


def test_capturing_draws_nothing() -> None:
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    expected = draw()
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    randomness.capture()
    assert draw() == expected
