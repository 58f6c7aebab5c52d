"""One file per published method: its point on the axes, and its paper's defaults. No torch.

A new method is one file here with a class of options, and its name in `METHODS`.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from foreword.methods.backbone_alone import BackboneAlone
from foreword.methods.base import MethodOptions
from foreword.methods.prefix_tuning import PrefixTuning

METHODS: dict[str, type[MethodOptions]] = {
    "prefix-tuning": PrefixTuning,
    "backbone-alone": BackboneAlone,
}

MethodChoice = Annotated[PrefixTuning | BackboneAlone, Field(discriminator="name")]

__all__ = ["METHODS", "BackboneAlone", "MethodChoice", "MethodOptions", "PrefixTuning"]
