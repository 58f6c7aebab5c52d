"""A prompt on a transformers model, for training loops of other packages."""

from foreword.attached.making import attach, detach
from foreword.attached.model import AttachedModel

__all__ = ["AttachedModel", "attach", "detach"]
