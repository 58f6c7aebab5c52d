"""foreword: teach one frozen language model many tasks, each with kilobytes of prompt.

    import foreword

    run = foreword.train("recipes/quickstart.yaml")
    prompt = foreword.load(run.artifact)
    print(prompt.generate(["name : Silver Piper | type : bird | colour : grey"]))

The names of PEFT's prompt methods are here too (`from foreword import PromptTuningConfig`).
Public names are imported when they are first used, so `import foreword` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from foreword.artifacts.composing import compose as compose
    from foreword.artifacts.similarity import similar as similar
    from foreword.attached import attach as attach
    from foreword.attached import detach as detach
    from foreword.backbone import load_backbone as load_backbone
    from foreword.bank import prompts as prompts
    from foreword.compat import PeftType as PeftType
    from foreword.compat import PrefixEncoder as PrefixEncoder
    from foreword.compat import PrefixTuningConfig as PrefixTuningConfig
    from foreword.compat import PromptEmbedding as PromptEmbedding
    from foreword.compat import PromptEncoder as PromptEncoder
    from foreword.compat import PromptEncoderConfig as PromptEncoderConfig
    from foreword.compat import (
        PromptEncoderReparameterizationType as PromptEncoderReparameterizationType,
    )
    from foreword.compat import PromptTuningConfig as PromptTuningConfig
    from foreword.compat import PromptTuningInit as PromptTuningInit
    from foreword.compat import TaskType as TaskType
    from foreword.compat import export_model as export_model
    from foreword.compat import export_peft as export_peft
    from foreword.compat import import_peft as import_peft
    from foreword.data import read_examples as read_examples
    from foreword.recipe import load_recipe as load_recipe
    from foreword.runs import train as train
    from foreword.sentences import sentence_module as sentence_module
    from foreword.session import load as load

__version__ = "0.1.0"
__all__ = [
    "PeftType",
    "PrefixEncoder",
    "PrefixTuningConfig",
    "PromptEmbedding",
    "PromptEncoder",
    "PromptEncoderConfig",
    "PromptEncoderReparameterizationType",
    "PromptTuningConfig",
    "PromptTuningInit",
    "TaskType",
    "__version__",
    "attach",
    "compose",
    "detach",
    "export_model",
    "export_peft",
    "import_peft",
    "load",
    "load_backbone",
    "load_recipe",
    "prompts",
    "read_examples",
    "sentence_module",
    "similar",
    "train",
]

_COMPAT = "foreword.compat"
_HOMES = {
    "PeftType": _COMPAT,
    "PrefixEncoder": _COMPAT,
    "PrefixTuningConfig": _COMPAT,
    "PromptEmbedding": _COMPAT,
    "PromptEncoder": _COMPAT,
    "PromptEncoderConfig": _COMPAT,
    "PromptEncoderReparameterizationType": _COMPAT,
    "PromptTuningConfig": _COMPAT,
    "PromptTuningInit": _COMPAT,
    "TaskType": _COMPAT,
    "attach": "foreword.attached",
    "compose": "foreword.artifacts.composing",
    "detach": "foreword.attached",
    "export_model": _COMPAT,
    "export_peft": _COMPAT,
    "import_peft": _COMPAT,
    "load": "foreword.session",
    "load_backbone": "foreword.backbone",
    "load_recipe": "foreword.recipe",
    "prompts": "foreword.bank",
    "read_examples": "foreword.data",
    "sentence_module": "foreword.sentences",
    "similar": "foreword.artifacts.similarity",
    "train": "foreword.runs",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'foreword' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
