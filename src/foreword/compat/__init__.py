"""PEFT's names and PEFT's files, without PEFT.

The configurations and modules keep PEFT's fields, defaults, parameter names and shapes, so that
code written for them runs with the import replaced; `import_peft` and `export_peft` carry trained
prompts and LoRA over and back.
"""

from foreword.compat.adaption import AdaptionPromptConfig
from foreword.compat.configs import (
    CPTConfig,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptLearningConfig,
    PromptTuningConfig,
)
from foreword.compat.encoders import PrefixEncoder, PromptEmbedding, PromptEncoder
from foreword.compat.exporting import export_peft
from foreword.compat.importing import import_peft
from foreword.compat.low_rank import LoraConfig
from foreword.compat.peft_types import (
    PeftType,
    PromptEncoderReparameterizationType,
    PromptTuningInit,
    TaskType,
)
from foreword.compat.plain import export_model

__all__ = [
    "AdaptionPromptConfig",
    "CPTConfig",
    "LoraConfig",
    "PeftType",
    "PrefixEncoder",
    "PrefixTuningConfig",
    "PromptEmbedding",
    "PromptEncoder",
    "PromptEncoderConfig",
    "PromptEncoderReparameterizationType",
    "PromptLearningConfig",
    "PromptTuningConfig",
    "PromptTuningInit",
    "TaskType",
    "export_model",
    "export_peft",
    "import_peft",
]
