"""Metrics, and the loop that decodes a data set and measures the answers."""

from foreword.evaluation.evaluate import Report, evaluate
from foreword.evaluation.metrics import METRICS, Metric

__all__ = ["METRICS", "Metric", "Report", "evaluate"]
