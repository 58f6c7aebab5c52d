"""The only home of transformers' internals: loading, attention, caches, model families."""

from foreword.backbone.attention import PromptKeyValues
from foreword.backbone.decoding import Decoding
from foreword.backbone.families import Geometry
from foreword.backbone.loading import bundled_backbones, default_device, load_backbone
from foreword.backbone.model import Backbone
from foreword.backbone.tokens import Tokens

__all__ = [
    "Backbone",
    "Decoding",
    "Geometry",
    "PromptKeyValues",
    "Tokens",
    "bundled_backbones",
    "default_device",
    "load_backbone",
]
