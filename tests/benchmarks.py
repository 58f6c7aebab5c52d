"""The scripts of bench/, for the tests that run them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).resolve().parents[1] / "bench"
Bench = Callable[[str], ModuleType]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """Imports a script of bench/ by its name, anew in every test and found as Python finds it when
    it is run; what running one sets for the whole process is set back."""
    import torch
    from accelerate.state import AcceleratorState
    from transformers.utils import logging

    monkeypatch.syspath_prepend(str(BENCH))
    own = {file.stem for file in BENCH.glob("*.py")}
    for name in own:
        monkeypatch.delitem(sys.modules, name, raising=False)
    threads, verbosity = torch.get_num_threads(), logging.get_verbosity()
    yield import_module
    for name in own:
        sys.modules.pop(name, None)
    torch.set_num_threads(threads)
    logging.set_verbosity(verbosity)
    AcceleratorState._reset_state()
