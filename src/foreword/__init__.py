"""foreword: teach one frozen language model many tasks, each with a few kilobytes of prompt.

    import foreword

    run = foreword.train("recipes/quickstart.yaml")
    prompt = foreword.load(run.artifact)
    print(prompt.generate(["name : Silver Piper | type : bird | colour : grey"]))

Public names are imported when they are first used, so `import foreword` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from foreword.backbone import load_backbone as load_backbone
    from foreword.recipe import load_recipe as load_recipe
    from foreword.runs import train as train
    from foreword.session import load as load
    from foreword.tasks import read_examples as read_examples

__version__ = "0.1.0"
__all__ = ["__version__", "load", "load_backbone", "load_recipe", "read_examples", "train"]

_HOMES = {
    "load": "foreword.session",
    "load_backbone": "foreword.backbone",
    "load_recipe": "foreword.recipe",
    "read_examples": "foreword.tasks",
    "train": "foreword.runs",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'foreword' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
