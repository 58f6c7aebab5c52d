"""Rotary frequencies that a GGUF file stores as numbers, told as the rule that made them.

llama.cpp writes for Llama 3.1 and its like one factor for each frequency (`rope_freqs.weight`),
which transformers does not read: without them every answer would be slightly wrong, and long ones
badly. transformers has the same as a rule, "llama3" (Dubey et al. 2024, "The Llama 3 Herd of
Models").
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from foreword.errors import BackboneError

_RULE = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
_READ_BEFORE = 8192
"""Positions of Llama 3's first training, the only ones that its released models state."""


def with_own_frequencies(name: str, config: Any, factors: Any) -> Any:
    """A config whose rotary positions are those of the stored factors.

    Args:
        name: the backbone's, for messages.
        config: transformers' config of the file, with plain rotary positions.
        factors: the stored numbers `[head_dim / 2]`, by which the plain frequencies are divided.

    Raises:
        BackboneError: they are those of no rule that transformers has.
    """
    stored = torch.tensor(factors, dtype=torch.float64)
    plain = dict(config.rope_parameters)
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    steps = torch.arange(0, width, 2, dtype=torch.float64) / width
    wanted = float(plain["rope_theta"]) ** -steps / stored
    ruled = copy.deepcopy(config)
    ruled.rope_parameters = {
        **plain,
        **_RULE,
        "rope_type": "llama3",
        "factor": round(float(stored.max()), 4),
        "original_max_position_embeddings": _READ_BEFORE,
    }
    made, scale = ROPE_INIT_FUNCTIONS["llama3"](ruled, torch.device("cpu"))
    same = made.shape == wanted.shape and torch.allclose(made.double(), wanted, rtol=1e-5, atol=0)
    if not same or scale != 1.0:
        raise BackboneError(
            f"backbone '{name}': stores rotary frequencies of its own that follow no rule of "
            "transformers', so that its answers would be wrong; use the model's safetensors"
        )
    return ruled
