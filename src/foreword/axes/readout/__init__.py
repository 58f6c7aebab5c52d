"""How the answer is read off the backbone."""

from foreword.axes.readout.base import Predictor, Readout, read_together
from foreword.axes.readout.choices import ChoiceHead, Likelihood
from foreword.axes.readout.generation import Generation
from foreword.axes.readout.head import (
    Head,
    LabelsHead,
    NumberHead,
    SequenceHead,
    SpanHead,
    TokenHead,
)
from foreword.axes.readout.vectors import Vectors
from foreword.axes.readout.verbalizer import AnyWord, Blank, Verbalizer

__all__ = [
    "AnyWord",
    "Blank",
    "ChoiceHead",
    "Generation",
    "Head",
    "LabelsHead",
    "Likelihood",
    "NumberHead",
    "Predictor",
    "Readout",
    "SequenceHead",
    "SpanHead",
    "TokenHead",
    "Vectors",
    "Verbalizer",
    "read_together",
]
