"""PEFT's names and PEFT's files, without PEFT; and what vLLM serves.

The configurations and modules keep PEFT's fields, defaults, parameter names and shapes, so that
code written for them runs with the import replaced; `import_peft` and `export_peft` carry trained
prompts and LoRA over and back. `export_vllm` writes prompts for the plug-in foreword-vllm.
"""

from foreword.compat.adapters.adaption import AdaptionPromptConfig
from foreword.compat.adapters.cartridge import CartridgeConfig
from foreword.compat.adapters.cpt import CPTConfig
from foreword.compat.adapters.low_rank import LoraConfig
from foreword.compat.adapters.multitask import MultitaskPromptTuningConfig
from foreword.compat.adapters.p_tuning import PromptEncoderConfig
from foreword.compat.adapters.prefix import PrefixTuningConfig
from foreword.compat.adapters.prompt import PromptTuningConfig
from foreword.compat.configs import PromptLearningConfig
from foreword.compat.encoders import PrefixEncoder, PromptEmbedding, PromptEncoder
from foreword.compat.exporting import export_peft
from foreword.compat.importing import import_peft
from foreword.compat.peft_types import (
    MultitaskPromptTuningInit,
    PeftType,
    PromptEncoderReparameterizationType,
    PromptTuningInit,
    TaskType,
)
from foreword.compat.plain import export_model
from foreword.compat.vllm import export_vllm

__all__ = [
    "AdaptionPromptConfig",
    "CPTConfig",
    "CartridgeConfig",
    "LoraConfig",
    "MultitaskPromptTuningConfig",
    "MultitaskPromptTuningInit",
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
    "export_vllm",
    "import_peft",
]
