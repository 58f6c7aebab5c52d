"""Decoding: token by token with rows that come and go, and beam search."""

from foreword.backbone.decoding.beams import write_by_transformers
from foreword.backbone.decoding.choosing import End, Likely, Telling
from foreword.backbone.decoding.line import kept_columns, shares
from foreword.backbone.decoding.options import Decoding
from foreword.backbone.decoding.packing import packed, packed_bytes
from foreword.backbone.decoding.steps import StepDecoder, Written, generate, write

__all__ = [
    "Decoding",
    "End",
    "Likely",
    "StepDecoder",
    "Telling",
    "Written",
    "generate",
    "kept_columns",
    "packed",
    "packed_bytes",
    "shares",
    "write",
    "write_by_transformers",
]
