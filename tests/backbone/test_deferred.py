"""What transformers would import unasked is imported when it is asked for."""

import subprocess
import sys
from importlib.util import find_spec

import pytest

START = "import sys; import foreword.compat, foreword.runs, foreword.session\n"
UNASKED = "{'torchao', 'peft', 'datasets', 'matplotlib', 'sacrebleu'}"


def python(code: str) -> str:
    """What a process of its own says on standard error; it must end well."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_a_start_imports_nothing_unasked_and_warns_of_nothing() -> None:
    assert python(f"{START}sys.exit(' '.join({UNASKED} & sys.modules.keys()) or 0)") == ""


@pytest.mark.skipif(find_spec("torchao") is None, reason="needs torchao")
def test_torchao_is_there_when_it_is_asked_for() -> None:
    """transformers finds it, and the function that it imports at its start elsewhere works."""
    python(
        f"{START}"
        "import torch\n"
        "from transformers.quantizers import quantizer_torchao as own\n"
        "from transformers.utils import is_torchao_available\n"
        "assert is_torchao_available() and 'torchao' not in sys.modules\n"
        "tensors, _ = own.flatten_tensor_state_dict({'a': torch.ones(2)})\n"
        "assert list(tensors) == ['a'] and 'torchao' in sys.modules\n"
    )
