"""What transformers would import unasked is imported when it is asked for."""

import subprocess
import sys
from importlib.util import find_spec

import pytest

UNASKED = {"torchao", "peft", "datasets", "matplotlib", "sacrebleu"}
CODE = f"""
import sys
import foreword.compat, foreword.runs, foreword.session
print(*({UNASKED!r} & sys.modules.keys()))
print("started", file=sys.stderr)
import torch
from transformers.quantizers import quantizer_torchao as own
from transformers.utils import is_torchao_available
print(is_torchao_available(), "torchao" in sys.modules)
if is_torchao_available():
    tensors, _ = own.flatten_tensor_state_dict({{"a": torch.ones(2)}})
    print(list(tensors), "torchao" in sys.modules)
"""


@pytest.fixture(scope="module")
def printed() -> tuple[list[str], str]:
    """The lines that a process of its own prints, and what it says until it has started."""
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), done.stderr.partition("started\n")[0]


def test_a_start_imports_nothing_unasked_and_warns_of_nothing(
    printed: tuple[list[str], str],
) -> None:
    lines, said = printed
    assert (lines[0], said) == ("", "")


@pytest.mark.skipif(find_spec("torchao") is None, reason="needs torchao")
def test_torchao_is_there_when_it_is_asked_for(printed: tuple[list[str], str]) -> None:
    """transformers finds it, and the function that it imports at its start elsewhere works."""
    lines, _ = printed
    assert lines[1:] == ["True False", "['a'] True"]
