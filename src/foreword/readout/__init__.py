"""How the answer is read off the backbone."""

from foreword.readout.base import Readout, Told, read_together
from foreword.readout.generation import Generation
from foreword.readout.head import Head, SequenceHead, SpanHead, TokenHead
from foreword.readout.verbalizer import AnyWord, Blank, Verbalizer

__all__ = [
    "AnyWord",
    "Blank",
    "Generation",
    "Head",
    "Readout",
    "SequenceHead",
    "SpanHead",
    "TokenHead",
    "Told",
    "Verbalizer",
    "read_together",
]
