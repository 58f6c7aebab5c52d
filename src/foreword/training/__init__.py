"""The only training loop: batches, optimizer, evaluation during training, checkpoints."""

from foreword.backbone.layout import Pair
from foreword.training.batching import LengthBatches
from foreword.training.history import History
from foreword.training.loop import train
from foreword.training.signals import Stopped

__all__ = ["History", "LengthBatches", "Pair", "Stopped", "train"]
