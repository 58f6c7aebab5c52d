"""One run of a recipe: train, measure, and a folder with all of it."""

from foreword.runs.folder import Run
from foreword.runs.run import train
from foreword.training import Stopped

__all__ = ["Run", "Stopped", "train"]
