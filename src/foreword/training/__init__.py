"""The only training loop: batches, optimizer, evaluation during training."""

from foreword.training.batching import LengthBatches, Pair
from foreword.training.loop import History, train

__all__ = ["History", "LengthBatches", "Pair", "train"]
