"""Which model families can carry prompt keys and values, found out before training starts.

A family is accepted by what it does, not by its name: a probe runs two tokens through the attention
function with a random prompt, and through the model's own cache with the same prompt, and the two
answers must agree. The names below only give a better reason than the probe could.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel

from foreword.backbone.attention import ARGUMENT, PromptKeyValues
from foreword.errors import BackboneError

REFUSED = {
    "bloom": "its alibi biases are computed from the mask, outside the attention interface",
    "mpt": "its alibi biases are computed outside the attention interface",
    "gemma2": "its attention logits have a soft cap, which scaled dot-product attention cannot do",
    "deberta": "its attention does not go through transformers' attention interface",
    "deberta-v2": "its attention does not go through transformers' attention interface",
    "mamba": "it has no attention, so there are no keys and values to put a prefix before",
    "mamba2": "it has no attention, so there are no keys and values to put a prefix before",
    "rwkv": "it has no attention, so there are no keys and values to put a prefix before",
}


@dataclass(frozen=True)
class Geometry:
    """The numbers of a backbone that a prompt's shape depends on."""

    layers: int
    kv_heads: int
    head_dim: int
    width: int
    context: int | None
    vocabulary: int


def refuse_by_name(model_type: str) -> None:
    """Raise for a family that is known not to work, with the reason."""
    if model_type in REFUSED:
        raise BackboneError(
            f"backbone family '{model_type}' cannot carry a prefix: {REFUSED[model_type]}. "
            "Families that work: gpt2, llama, qwen3, opt and others that use the attention "
            "interface"
        )


def measure(model: PreTrainedModel) -> Geometry:
    """Read the geometry off a cache that the model filled with two tokens."""
    config = model.config.get_text_config(decoder=True)
    ids = torch.zeros(1, 2, dtype=torch.long, device=model.device)
    try:
        with torch.no_grad():
            cache = model(
                input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=True
            ).past_key_values
        shapes = [tuple(layer.keys.shape) for layer in cache.layers]
    except (AttributeError, TypeError, ValueError):
        cache, shapes = None, []
    if len(shapes) != config.num_hidden_layers or len({shape[1::2] for shape in shapes}) != 1:
        raise BackboneError(
            f"backbone family '{config.model_type}' cannot carry a prefix: its layers do not all "
            f"cache keys and values of one shape (found {sorted(set(shapes))} in {len(shapes)} of "
            f"{config.num_hidden_layers} layers)"
        )
    windows = [
        layer.sliding_window for layer in cache.layers if getattr(layer, "is_sliding", False)
    ]
    if windows and min(windows) < (getattr(config, "max_position_embeddings", None) or 2**62):
        raise BackboneError(
            f"backbone family '{config.model_type}' cannot carry a prefix: it attends through a "
            f"sliding window of {min(windows)} positions, out of which the prefix would slide"
        )
    return Geometry(
        layers=len(shapes),
        kv_heads=shapes[0][1],
        head_dim=shapes[0][3],
        width=model.get_input_embeddings().embedding_dim,
        context=getattr(config, "max_position_embeddings", None),
        vocabulary=model.get_input_embeddings().num_embeddings,
    )


def probe(model: PreTrainedModel, geometry: Geometry) -> None:
    """Raise unless a prefix through the attention function equals the same prefix in the cache."""
    family = model.config.model_type
    prompt = _random_prompt(model, geometry)
    ids = torch.zeros(1, 2, dtype=torch.long, device=model.device)
    positions = torch.arange(2, device=model.device)[None] + prompt.length
    cache = fill_cache(model, prompt.keys, prompt.values, rows=1)
    seen = torch.ones(1, prompt.length + 2, dtype=torch.long, device=model.device)
    common: dict[str, Any] = {"input_ids": ids, "position_ids": positions}
    try:
        with torch.no_grad():
            ours = model(
                **common,
                attention_mask=seen[:, prompt.length :],
                use_cache=False,
                **{ARGUMENT: prompt},
            ).logits
            cached = model(
                **common, attention_mask=seen, use_cache=True, past_key_values=cache
            ).logits
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise BackboneError(f"backbone family '{family}' cannot carry a prefix: {error}") from error
    missing = set(range(geometry.layers)) - prompt.reached
    if missing:
        raise BackboneError(
            f"backbone family '{family}' cannot carry a prefix: layers {sorted(missing)} do not "
            "call the attention interface"
        )
    scale = max(1.0, cached.abs().max().item())
    gap = (ours.float() - cached.float()).abs().max().item()
    tolerance = 1e-4 if ours.dtype in (torch.float32, torch.float64) else 5e-2
    if not gap <= tolerance * scale:
        raise BackboneError(
            f"backbone family '{family}' cannot carry a prefix: through the attention interface "
            f"its logits differ by {gap:.2g} from those with the same prefix in its cache"
        )


def fill_cache(
    model: PreTrainedModel, keys: torch.Tensor, values: torch.Tensor, *, rows: int
) -> DynamicCache:
    """A cache for B rows whose first P positions are the prompt's.

    Args:
        keys: `[layers, P, kv_heads, head_dim]`; `values` the same.
        rows: B; for beam search the number of beams in all.
    """
    cache = DynamicCache(config=model.config)
    for layer in range(keys.shape[0]):
        key, value = (
            side[layer].transpose(0, 1).to(model.dtype).expand(rows, -1, -1, -1).contiguous()
            for side in (keys, values)
        )
        cache.update(key, value, layer)
    return cache


def _random_prompt(model: PreTrainedModel, geometry: Geometry) -> PromptKeyValues:
    generator = torch.Generator().manual_seed(0)
    shape = (2, geometry.layers, 1, geometry.kv_heads, geometry.head_dim)
    keys, values = torch.randn(shape, generator=generator).to(model.device, model.dtype)
    return PromptKeyValues(keys, values)
