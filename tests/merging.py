"""Attention in two parts (`foreword.backbone.prompts.merged`) of however few virtual tokens."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest.mock import patch

from foreword.backbone.prompts import merged


@contextmanager
def however_few() -> Iterator[list[str]]:
    """While it lasts; gives a list to which each such attention adds its name."""
    calls: list[str] = []

    def counted(name: str) -> Callable[..., object]:
        plain = getattr(merged, name)

        def run(*args: object, **kwargs: object) -> object:
            calls.append(name)
            return plain(*args, **kwargs)

        return run

    counters = {name: counted(name) for name in ("attention", "written")}
    with patch.multiple(merged, LEAST=1, QUERIES=1, **counters):
        yield calls
