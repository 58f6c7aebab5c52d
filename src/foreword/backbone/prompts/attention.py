"""The way in: attention functions that put prompt keys and values before a layer's own.

transformers calls the function registered under a model's `attn_implementation` for every layer,
with whatever keyword arguments `forward` was given. The prompt travels as such an argument.

Li & Liang 2021, section 4.1: the prefix is `P` past positions at every layer that all later
positions attend to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.flex_attention import flex_attention_forward
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask, flex_attention_mask, sdpa_mask

from foreword.backbone.leaving_out import saves
from foreword.backbone.prompts import queries
from foreword.backbone.prompts.carrying import ARGUMENT
from foreword.backbone.prompts.prompt import Prompt

Attention = Literal["sdpa", "eager", "flex"]
Function = Callable[..., tuple[Tensor, Any]]


def implementation(attention: Attention) -> str:
    """The name under which transformers knows an attention of ours.

    It holds transformers' own name for what computes it, by which transformers checks that a family
    can do it.
    """
    return f"foreword_{'flex_attention' if attention == 'flex' else attention}"


def eager(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    softcap: float | None = None,
    position_bias: Tensor | None = None,
    s_aux: Tensor | None = None,
    is_causal: bool | None = None,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """Attention as matrix products: it knows soft caps (Gemma 2) and sinks (gpt-oss), and shows
    its weights.

    Args:
        query: `[B, heads, Q, key_dim]`.
        key: `[B, kv_heads, K, key_dim]`; `value` `[B, kv_heads, K, value_dim]`.
        attention_mask: `[B or 1, 1, Q, K]` bool or additive, or none: causal where the module is.
        softcap: scores are kept within it by tanh.
        s_aux: one sink per head, a score that draws weight to nothing.

    Returns:
        `[B, Q, heads, value_dim]`, and the weights `[B, heads, Q, K]`.
    """
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (side.repeat_interleave(groups, dim=1) for side in (key, value))
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if position_bias is not None:
        scores = scores + position_bias
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    if attention_mask is None and causal and query.shape[2] > 1:
        size = scores.shape[-2:]
        attention_mask = torch.ones(size, dtype=torch.bool, device=scores.device).tril(
            size[1] - size[0]
        )
    lowest = torch.finfo(scores.dtype).min
    if attention_mask is not None and attention_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attention_mask, lowest)
    elif attention_mask is not None:
        scores = (scores + attention_mask.to(scores.dtype)).clamp(min=lowest)
    kept = scores.shape[-1]
    if s_aux is not None:
        sinks = s_aux.to(scores.dtype)[None, :, None, None]
        scores = torch.cat([scores, sinks.expand(*scores.shape[:3], 1)], dim=-1)
    weights = (
        scores.float().softmax(-1).to(query.dtype)
        if scores.element_size() < 4
        else (scores.softmax(-1))
    )
    weights = nn.functional.dropout(weights[..., :kept], p=dropout, training=module.training)
    return (weights @ value).transpose(1, 2).contiguous(), weights


def flex(module: nn.Module, query: Tensor, *given: Any, **kwargs: Any) -> tuple[Tensor, Any]:
    """FlexAttention, which looks up a position bias for every row of the batch (T5 has one)."""
    bias = kwargs.pop("position_bias", None)
    if bias is not None:
        kwargs["position_bias"] = bias.expand(query.shape[0], -1, -1, -1)
    return cast(tuple[Tensor, Any], flex_attention_forward(module, query, *given, **kwargs))


def masked(batch_size: int, q_length: int, kv_length: int, **given: Any) -> Tensor | None:
    """The mask of torch's kernels: none for a causal attention over rows that are padded behind
    their text, whose tokens see no padding by the order alone. What padding itself gets is nothing
    that anything reads.

    Args:
        batch_size, q_length, kv_length: B, Q, K.
        given: what else transformers' `sdpa_mask` takes.

    Returns:
        `[B, 1, Q, K]` bool, or none.
    """
    rows = given.get("attention_mask")
    if (
        rows is not None
        and q_length == kv_length == rows.shape[-1]
        and given.get("allow_is_causal_skip", True)
        and saves("masks")
        and not torch.compiler.is_compiling()  # which cannot look at numbers
        and bool((rows[:, :-1] >= rows[:, 1:]).all())
    ):
        given["attention_mask"] = None
    return cast(Tensor | None, sdpa_mask(batch_size, q_length, kv_length, **given))


def _with_prompt(inner: Function) -> Function:
    def attend(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Any,
        **kwargs: Any,
    ) -> tuple[Tensor, Any]:
        prompt: Prompt | None = kwargs.pop(ARGUMENT, None)
        key, value, mask, kwargs = queries.attention(
            module, query, key, value, attention_mask, kwargs
        )
        if prompt is None:
            return inner(module, query, key, value, mask, **kwargs)
        return prompt.attend(inner, module, query, key, value, mask, **kwargs)

    return attend


_FUNCTIONS: dict[Attention, tuple[Function, Callable[..., Any]]] = {
    "sdpa": (_with_prompt(sdpa_attention_forward), masked),
    "eager": (_with_prompt(eager), eager_mask),
    "flex": (_with_prompt(flex), flex_attention_mask),
}


def register() -> None:
    """Make the functions known to transformers. The mask goes in too: without it none is made."""
    for attention, (function, mask) in _FUNCTIONS.items():
        AttentionInterface.register(implementation(attention), function)
        AttentionMaskInterface.register(implementation(attention), mask)
