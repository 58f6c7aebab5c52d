"""Attention over many virtual tokens that all rows of a batch share, apart from that over the text
of each row, and the two merged by their log-sum-exp.

Keys and values of the virtual tokens are then not copied for every row, and the attention over the
text needs no mask that lets every query see them. The merged softmax is the softmax over both
(Juravsky et al. 2024, "Hydragen", section 3).

Of torch's kernels the CPU's is taken, which gives the log-sum-exp (`parts.py`); on other devices
nothing changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from foreword.backbone.leaving_out import saves
from foreword.backbone.prompts.key_values import Front, KeyValues, PromptKeyValues
from foreword.backbone.prompts.parts import both, even, in_two_parts, of_front, of_text, works

LEAST, QUERIES = 256, 256
"""From so many virtual tokens and queries on this takes less time than one attention over both."""
_OTHERS = ("softcap", "s_aux", "cache")
"""What an attention may be given beside its tensors; it is then not computed in two parts."""


def many(tokens: KeyValues | None) -> bool:
    """Whether there are so many virtual tokens that it may be worth while."""
    return tokens is not None and tokens.length >= LEAST


def serves(
    inner: Callable[..., Any],
    front: Front,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Any,
    given: Mapping[str, Any],
    *,
    causal: bool,
) -> bool:
    """Whether an attention can be computed in two parts, and takes less time so.

    Args:
        inner: computes attention; torch's own alone is known here.
        front: the virtual tokens.
        query: `[B, heads, Q, dim]`.
        key, value: `[B, kv_heads, K, dim]`, of the rows' own text.
        mask: what hides some of the text; or none.
        given: what else the attention function gets.
        causal: whether no mask stands for a causal attention.
    """
    rows, heads, queries, width = query.shape
    return (
        inner is sdpa_attention_forward
        and query.device.type == "cpu"
        and rows * queries >= QUERIES
        and front.keys.shape[0] == 1
        and front.seen is None
        and not front.dropout
        and not (mask is None and causal and queries != key.shape[2])
        and (mask is None or (isinstance(mask, Tensor) and mask.ndim == 4))
        and key.shape == value.shape
        and front.keys.shape[1::2] == front.values.shape[1::2] == (key.shape[1], width)
        and heads % key.shape[1] == 0
        and key.shape[0] == rows
        and (query.dtype == key.dtype == value.dtype or _is_cast(query))
        and all(given.get(name) is None for name in _OTHERS)
        and not given.get("dropout")
        and not given.get("output_attentions")
        and not torch.compiler.is_compiling()
        and not getattr(torch._C, "_are_functorch_transforms_active", bool)()
        and torch.backends.cuda.flash_sdp_enabled()  # type: ignore[no-untyped-call]  # the CPU's, too
        and works()
    )


def attention(
    front: Front,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float | None,
    *,
    causal: bool,
) -> Tensor:
    """What queries get of virtual tokens and text: `[B, Q, heads, dim]`.

    Args:
        front: the virtual tokens, which every query sees.
        query: `[B, heads, Q, dim]`.
        key, value: `[B, kv_heads, K, dim]`.
        mask: `[B or 1, heads or 1, Q or 1, K]`, bool or additive; or none.
        scaling: of the scores; none: one by the root of `dim`.
        causal: what no mask stands for.
    """
    dtype = query.dtype
    if _is_cast(query):
        dtype = torch.get_autocast_dtype(query.device.type)
    sides = (query, key, value, front.keys[0], front.values[0])
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    output = in_two_parts(
        [even(side.to(query.device, dtype)) for side in sides],
        mask,
        scale,
        causal=causal and mask is None,
    )
    return output.transpose(1, 2).contiguous()


def written(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float | None,
    fronts: Sequence[tuple[Tensor | slice | None, Front]],
) -> Tensor:
    """What queries of rows that are being written get of virtual tokens and text, without a
    gradient: `[B, Q, heads, dim]`.

    Args:
        query: `[B, heads, Q, dim]`.
        key, value: `[B, kv_heads, K, dim]`.
        mask: as in `attention`; none: a causal attention, or one query that sees everything.
        scaling: of the scores.
        fronts: rows, by their numbers `[N]` or as a slice, with the virtual tokens that they
            share; none: all rows.
    """
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    causal = mask is None and query.shape[2] > 1
    query, key, value = (even(side) for side in (query, key, value))
    own = of_text(query, key, value, mask, scale, causal=causal)
    if len(fronts) == 1 and fronts[0][0] is None:
        of_fronts = of_front(query, *_sides(fronts[0][1], query), scale=scale)
    else:
        of_fronts = torch.zeros_like(own[0]), torch.full_like(own[1], -torch.inf)
        for rows, front in fronts:
            one = of_front(query[rows], *_sides(front, query), scale=scale)
            for whole, part in zip(of_fronts, one, strict=True):
                whole[rows] = part
    return both(own, of_fronts)[0].transpose(1, 2)


def _sides(front: Front, query: Tensor) -> list[Tensor]:
    """Keys and values of a front as queries take them: `[kv_heads, P, dim]`."""
    return [even(side[0].to(query)) for side in (front.keys, front.values)]


def is_shared(tokens: PromptKeyValues) -> bool:
    """Whether rows that are being written can share these virtual tokens, and it is worth while."""
    return (
        many(tokens)
        and tokens.gates is None
        and all(
            one.device.type == "cpu" and one.shape[-1] == other.shape[-1]
            for one, other in zip(tokens.keys, tokens.values, strict=True)
        )
        and saves("copies")
        and works()
    )


def _is_cast(query: Tensor) -> bool:
    """Whether torch's own attention would be cast, which autocast does with all but float64."""
    return query.dtype != torch.float64 and torch.is_autocast_enabled(query.device.type)
