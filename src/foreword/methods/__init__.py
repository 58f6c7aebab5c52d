"""One file per published method: its point on the axes, and its paper's defaults. No torch.

A new method is one file here with a class of options, and its name in `METHODS`.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from foreword.methods.backbone_alone import BackboneAlone
from foreword.methods.base import MethodOptions
from foreword.methods.p_tuning import PTuning
from foreword.methods.prefix_tuning import PrefixTuning
from foreword.methods.prompt_tuning import PromptTuning

METHODS: dict[str, type[MethodOptions]] = {
    "prefix-tuning": PrefixTuning,
    "prompt-tuning": PromptTuning,
    "p-tuning": PTuning,
    "backbone-alone": BackboneAlone,
}

MethodChoice = Annotated[
    PrefixTuning | PromptTuning | PTuning | BackboneAlone, Field(discriminator="name")
]

__all__ = [
    "METHODS",
    "BackboneAlone",
    "MethodChoice",
    "MethodOptions",
    "PTuning",
    "PrefixTuning",
    "PromptTuning",
]
