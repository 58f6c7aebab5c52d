"""One seed for all that is random."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode


def seed_all(seed: int) -> None:
    """Start Python's, numpy's and torch's generators from a seed, those of all devices too."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


class drawing_from(TorchFunctionMode):
    """While it lasts, what this thread draws by `torch.multinomial` comes from a seed of its own:
    for loops of transformers', which take no generator. torch's random state stays as it is."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed
        self._generator: torch.Generator | None = None

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run a function of torch's."""
        kwargs = dict(kwargs or {})
        if func is torch.multinomial and kwargs.get("generator") is None:
            if self._generator is None:
                self._generator = torch.Generator(args[0].device).manual_seed(self.seed)
            kwargs["generator"] = self._generator
        return func(*args, **kwargs)
