"""What `import foreword` gives, and what it costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import foreword


@pytest.mark.parametrize("name", foreword.__all__)
def test_public_names_are_there(name: str) -> None:
    assert getattr(foreword, name) is not None


def test_public_names_are_the_promised_ones() -> None:
    assert foreword.__all__ == sorted(foreword.__all__)
    assert dir(foreword) == sorted(foreword.__all__)
    assert set(foreword.__all__) >= {"__version__", "load", "load_backbone", "load_recipe", "train"}
    assert [name for name in foreword.__all__ if name != "__version__" and name[0] == "_"] == []
    assert all(getattr(foreword, n).__doc__ for n in foreword.__all__ if n != "__version__")


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="module 'foreword' has no attribute 'nothing'"):
        _ = foreword.nothing


@pytest.mark.parametrize(
    "statement",
    [
        "import foreword",
        "import foreword.cli.app",
        "import foreword.recipe",
        "import foreword.data",
        "import foreword.methods",
        "import foreword.artifacts.manifest",
        "import foreword.scoring",
    ],
)
def test_light_imports(statement: str) -> None:
    heavy = "{'torch', 'transformers', 'accelerate', 'datasets', 'matplotlib', 'sacrebleu'}"
    code = f"{statement}; import sys; sys.exit(' '.join({heavy} & sys.modules.keys()) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


ARTIFACTS = Path(__file__).parent / "artifacts" / "of_1_0"


@pytest.mark.parametrize(
    "words",
    [["--help"], ["train", "--help"], ["ls", str(ARTIFACTS)], ["show", str(ARTIFACTS / "prefix")]],
)
def test_light_commands(words: list[str]) -> None:
    """What computes nothing starts at once."""
    heavy = (
        "{'torch', 'transformers', 'accelerate', 'datasets', 'matplotlib', 'sacrebleu', 'numpy',"
        " 'safetensors', 'tokenizers'}"
    )
    code = (
        f"import sys; from foreword.cli import main; sys.argv = ['foreword', *{words!r}]\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        f"sys.exit(' '.join({heavy} & sys.modules.keys()) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
