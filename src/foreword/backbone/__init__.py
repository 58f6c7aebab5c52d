"""The only home of transformers' internals: loading, attention, caches, model families."""

from foreword.backbone import deferred as deferred  # before anything that imports a model
from foreword.backbone.decoding import Decoding
from foreword.backbone.geometry import Geometry, SiteGeometry
from foreword.backbone.loading import bundled_backbones, default_device, load_backbone
from foreword.backbone.model import Backbone
from foreword.backbone.own_heads import reads_spans_off_it, stored_pooler
from foreword.backbone.prompt import Prompt, PromptKeyValues
from foreword.backbone.seeding import seed_all
from foreword.backbone.sources import Sources
from foreword.backbone.sublayers import LINEAR, Ending
from foreword.backbone.tokens import Tokens

__all__ = [
    "LINEAR",
    "Backbone",
    "Decoding",
    "Ending",
    "Geometry",
    "Prompt",
    "PromptKeyValues",
    "SiteGeometry",
    "Sources",
    "Tokens",
    "bundled_backbones",
    "default_device",
    "load_backbone",
    "reads_spans_off_it",
    "seed_all",
    "stored_pooler",
]
