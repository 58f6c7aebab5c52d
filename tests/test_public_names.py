"""What `import foreword` gives, and what it costs."""

from __future__ import annotations

import subprocess
import sys

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
        "import foreword.tasks",
        "import foreword.methods",
        "import foreword.manifest",
        "import foreword.scoring",
    ],
)
def test_light_imports(statement: str) -> None:
    heavy = "{'torch', 'transformers', 'accelerate', 'datasets', 'matplotlib', 'sacrebleu'}"
    code = f"{statement}; import sys; sys.exit(' '.join({heavy} & sys.modules.keys()) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
