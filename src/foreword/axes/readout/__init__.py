"""How the answer is read off the backbone."""

from foreword.axes.readout.base import Predictor, Readout, read_together
from foreword.axes.readout.generation import Generation
from foreword.axes.readout.head import Head, SequenceHead, SpanHead, TokenHead
from foreword.axes.readout.verbalizer import AnyWord, Blank, Verbalizer

__all__ = [
    "AnyWord",
    "Blank",
    "Generation",
    "Head",
    "Predictor",
    "Readout",
    "SequenceHead",
    "SpanHead",
    "TokenHead",
    "Verbalizer",
    "read_together",
]
