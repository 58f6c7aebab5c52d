"""One run of a recipe: train, measure, and a folder with all of it."""

from foreword.runs.run import Run, train

__all__ = ["Run", "train"]
