"""Metrics, and the loop that decodes a data set and measures the answers."""

from foreword.evaluation.evaluate import Report, decode, evaluate, fit_inputs
from foreword.evaluation.heads import tell
from foreword.evaluation.metrics import METRICS, Metric

__all__ = ["METRICS", "Metric", "Report", "decode", "evaluate", "fit_inputs", "tell"]
