"""Metrics, and the loops that answer the examples of a data set and measure the answers."""

from foreword.evaluation.evaluate import Report, decode, evaluate, fit_inputs
from foreword.evaluation.heads import Asking, tell, tell_rows
from foreword.evaluation.metrics import METRICS, Metric
from foreword.evaluation.writing import Writing, decode_rows, write_rows

__all__ = [
    "METRICS",
    "Asking",
    "Metric",
    "Report",
    "Writing",
    "decode",
    "decode_rows",
    "evaluate",
    "fit_inputs",
    "tell",
    "tell_rows",
    "write_rows",
]
