"""One file per published method: its point on the axes, and its paper's defaults. No torch.

A new method is one file here with a class of options, and its name in `METHODS`.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from foreword.methods.adapter import Adapter
from foreword.methods.base import MethodOptions
from foreword.methods.bitfit import BitFit
from foreword.methods.embedding_only import EmbeddingOnly
from foreword.methods.fine_tuning import FineTuning
from foreword.methods.fine_tuning_top import FineTuningTop
from foreword.methods.hard_prompt import HardPrompt
from foreword.methods.head_only import HeadOnly
from foreword.methods.infix_tuning import InfixTuning
from foreword.methods.lora import LoRA
from foreword.methods.p_tuning import PTuning
from foreword.methods.p_tuning_v2 import PTuningV2
from foreword.methods.pet import PET
from foreword.methods.prefix_tuning import PrefixTuning
from foreword.methods.prompt_tuning import PromptTuning

METHODS: dict[str, type[MethodOptions]] = {
    "prefix-tuning": PrefixTuning,
    "infix-tuning": InfixTuning,
    "embedding-only": EmbeddingOnly,
    "prompt-tuning": PromptTuning,
    "p-tuning": PTuning,
    "p-tuning-v2": PTuningV2,
    "fine-tuning": FineTuning,
    "fine-tuning-top": FineTuningTop,
    "bitfit": BitFit,
    "adapter": Adapter,
    "lora": LoRA,
    "pet": PET,
    "head-only": HeadOnly,
    "hard-prompt": HardPrompt,
}

MethodChoice = Annotated[
    PrefixTuning
    | InfixTuning
    | EmbeddingOnly
    | PromptTuning
    | PTuning
    | PTuningV2
    | FineTuning
    | FineTuningTop
    | BitFit
    | Adapter
    | LoRA
    | PET
    | HeadOnly
    | HardPrompt,
    Field(discriminator="name"),
]

__all__ = [
    "METHODS",
    "PET",
    "Adapter",
    "BitFit",
    "EmbeddingOnly",
    "FineTuning",
    "FineTuningTop",
    "HardPrompt",
    "HeadOnly",
    "InfixTuning",
    "LoRA",
    "MethodChoice",
    "MethodOptions",
    "PTuning",
    "PTuningV2",
    "PrefixTuning",
    "PromptTuning",
]
