"""The only home of transformers' internals: loading, attention, caches, model families."""

from foreword.backbone.weights import deferred as deferred  # before anything that imports a model

# isort: split
from foreword.backbone.arithmetic import has_units, slowness
from foreword.backbone.beginnings import read_once
from foreword.backbone.call import Call, columns_of, way
from foreword.backbone.decoding import (
    Decoding,
    Likely,
    StepDecoder,
    Telling,
    Written,
    generate,
    kept_columns,
    packed,
    packed_bytes,
    shares,
    write,
    write_by_transformers,
)
from foreword.backbone.leaving_out import SAVINGS
from foreword.backbone.loading import bundled_backbones, default_device, load_backbone
from foreword.backbone.model import Backbone
from foreword.backbone.modules.sharding import Held
from foreword.backbone.modules.sublayers import LINEAR, Ending
from foreword.backbone.own_heads import (
    head_of_decoders,
    name_of_body,
    reads_spans_off_it,
    stored_pooler,
)
from foreword.backbone.prompts.key_values import KeyValues, PromptKeyValues, RowKeyValues
from foreword.backbone.prompts.prompt import Prompt
from foreword.backbone.savings import without
from foreword.backbone.seeding import seed_all
from foreword.backbone.shapes import Geometry, Heads, SiteGeometry
from foreword.backbone.sources import Encodings, Remembered, Sources
from foreword.backbone.text.chats import Chats, Spoken
from foreword.backbone.text.tokens import Tokens

__all__ = [
    "LINEAR",
    "SAVINGS",
    "Backbone",
    "Call",
    "Chats",
    "Decoding",
    "Encodings",
    "Ending",
    "Geometry",
    "Heads",
    "Held",
    "KeyValues",
    "Likely",
    "Prompt",
    "PromptKeyValues",
    "Remembered",
    "RowKeyValues",
    "SiteGeometry",
    "Sources",
    "Spoken",
    "StepDecoder",
    "Telling",
    "Tokens",
    "Written",
    "bundled_backbones",
    "columns_of",
    "default_device",
    "generate",
    "has_units",
    "head_of_decoders",
    "kept_columns",
    "load_backbone",
    "name_of_body",
    "packed",
    "packed_bytes",
    "read_once",
    "reads_spans_off_it",
    "seed_all",
    "shares",
    "slowness",
    "stored_pooler",
    "way",
    "without",
    "write",
    "write_by_transformers",
]
