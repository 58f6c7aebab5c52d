"""Metrics, and the answers to a data set, measured."""

from foreword.evaluation.evaluate import Report, evaluate
from foreword.evaluation.metrics import METRICS, Metric

__all__ = [
    "METRICS",
    "Metric",
    "Report",
    "evaluate",
]
