"""One file per published method: its point on the axes, and its paper's defaults. No torch.

A new method of foreword is one file here and its line below, which registers it and names its
options. Methods of other packages and of a user's own file are registered by `@method`, too.
"""

from __future__ import annotations

from typing import Annotated

from foreword.common.choices import OptionsIn
from foreword.methods.adapter import Adapter as Adapter
from foreword.methods.base import METHODS as METHODS
from foreword.methods.base import MethodOptions as MethodOptions
from foreword.methods.base import method as method
from foreword.methods.bitfit import BitFit as BitFit
from foreword.methods.cartridge import Cartridge as Cartridge
from foreword.methods.cpt import CPT as CPT
from foreword.methods.embedding_only import EmbeddingOnly as EmbeddingOnly
from foreword.methods.fine_tuning import FineTuning as FineTuning
from foreword.methods.fine_tuning_top import FineTuningTop as FineTuningTop
from foreword.methods.hard_prompt import HardPrompt as HardPrompt
from foreword.methods.head_only import HeadOnly as HeadOnly
from foreword.methods.infix_tuning import InfixTuning as InfixTuning
from foreword.methods.llama_adapter import LLaMAAdapter as LLaMAAdapter
from foreword.methods.lora import LoRA as LoRA
from foreword.methods.multitask_prompt_tuning import (
    MultitaskPromptTuning as MultitaskPromptTuning,
)
from foreword.methods.p_tuning import PTuning as PTuning
from foreword.methods.p_tuning_v2 import PTuningV2 as PTuningV2
from foreword.methods.pet import PET as PET
from foreword.methods.prefix_tuning import PrefixTuning as PrefixTuning
from foreword.methods.prompt_tuning import PromptTuning as PromptTuning
from foreword.methods.residual_prompt_tuning import ResidualPromptTuning as ResidualPromptTuning

MethodChoice = Annotated[MethodOptions, OptionsIn(METHODS, "name")]
"""The options of any method, told by their `name`."""
