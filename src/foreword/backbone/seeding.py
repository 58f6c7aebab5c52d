"""One seed for all that is random."""

from __future__ import annotations

import random

import numpy as np
import torch


def seed_all(seed: int) -> None:
    """Start Python's, numpy's and torch's generators from a seed, those of all devices too."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
