"""Models whose own modules change while they run: their forward passes take turns.

A frozen model reads its weights and writes nothing, so that any number of threads may run it. Some
do write: rotary frequencies that follow the longest row, position tables that grow, weights that
accelerate fetches for a moment, quantised layers that keep what they computed.
"""

from __future__ import annotations

from transformers import PreTrainedModel

from foreword.backbone import devices

_FOLLOWS_THE_TEXT = ("dynamic", "longrope")
"""Kinds of rotary embeddings whose frequencies a forward pass writes."""


def changes_itself(model: PreTrainedModel) -> bool:
    """Whether a forward pass of a model writes into the model's modules."""
    if devices.is_spread(model) or getattr(model, "is_quantized", False):
        return True
    for module in model.modules():
        kinds = getattr(module, "rope_type", None)
        rotary = kinds.values() if isinstance(kinds, dict) else (kinds,)
        if any(kind in _FOLLOWS_THE_TEXT for kind in rotary) or hasattr(module, "make_weights"):
            return True
    return False
