"""Attention over many virtual tokens that all rows of a batch share, apart from that over the text
of each row, and the two merged by their log-sum-exp.

Keys and values of the virtual tokens are then not copied for every row, and the attention over the
text needs no mask that lets every query see them. The merged softmax is the softmax over both
(Juravsky et al. 2024, "Hydragen", section 3); for the backward pass each part gets the log-sum-exp
and the output of the whole, from which the kernel computes its probabilities (Dao et al. 2022,
"FlashAttention", section 3.1 and appendix B).

Of torch's kernels the CPU's is taken, which gives the log-sum-exp; other devices see no difference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from foreword.backbone.leaving_out import saves
from foreword.backbone.prompts.key_values import Front, KeyValues, PromptKeyValues

LEAST, QUERIES = 256, 256
"""From so many virtual tokens and queries on this takes less time than one attention over both."""
MOST = 512
"""So many queries of a sequence: the kernel is slow with a few dozen."""
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
        and _works()
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
    output = _apply(
        [_even(side.to(query.device, dtype)) for side in sides],
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
    query, key, value = (_even(side) for side in (query, key, value))
    own = _of_text(query, key, value, mask, scale, causal=causal)
    if len(fronts) == 1 and fronts[0][0] is None:
        of_fronts = _of_front(query, *_sides(fronts[0][1], query), scale=scale)
    else:
        of_fronts = torch.zeros_like(own[0]), torch.full_like(own[1], -torch.inf)
        for rows, front in fronts:
            one = _of_front(query[rows], *_sides(front, query), scale=scale)
            for whole, part in zip(of_fronts, one, strict=True):
                whole[rows] = part
    return _both(own, of_fronts)[0].transpose(1, 2)


def _sides(front: Front, query: Tensor) -> list[Tensor]:
    """Keys and values of a front as queries take them: `[kv_heads, P, dim]`."""
    return [_even(side[0].to(query)) for side in (front.keys, front.values)]


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
        and _works()
    )


def _apply(sides: Sequence[Tensor], mask: Tensor | None, scale: float, *, causal: bool) -> Tensor:
    output: Tensor = _Merged.apply(*sides, mask, scale, causal)  # type: ignore[no-untyped-call]
    return output


def _is_cast(query: Tensor) -> bool:
    """Whether torch's own attention would be cast, which autocast does with all but float64."""
    return query.dtype != torch.float64 and torch.is_autocast_enabled(query.device.type)


def _even(side: Tensor) -> Tensor:
    """A tensor whose last numbers lie side by side, as the kernel takes for granted."""
    return side if side.stride(-1) == 1 else side.contiguous()


class _Merged(Function):
    """Queries `[B, heads, Q, dim]`, keys and values `[B, kv_heads, K, dim]`, and those of virtual
    tokens `[kv_heads, P, dim]`."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        front_key: Tensor,
        front_value: Tensor,
        mask: Tensor | None,
        scale: float,
        causal: bool,
    ) -> Tensor:
        own = _of_text(query, key, value, mask, scale, causal=causal)
        output, whole_sum = _both(own, _of_front(query, front_key, front_value, scale=scale))
        ctx.scale, ctx.causal = scale, causal
        ctx.save_for_backward(query, key, value, front_key, front_value, mask, output, whole_sum)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
        query, key, value, front_key, front_value, mask, output, whole_sum = ctx.saved_tensors
        gradient, together = gradient.contiguous(), _Together(query, key.shape[1])
        of_query, of_key, of_value = backward(
            gradient,
            query,
            *_for_heads(query.shape[1], key, value),
            output,
            whole_sum,
            0.0,
            ctx.causal,
            attn_mask=_added(mask, query),
            scale=ctx.scale,
        )
        of_folded, of_front_key, of_front_value = backward(
            together.fold(gradient),
            together.fold(query),
            *together.of_rows(front_key, front_value),
            together.fold(output),
            together.fold(whole_sum[..., None])[..., 0],
            0.0,
            False,
            scale=ctx.scale,
        )
        return (
            of_query + together.unfold(of_folded),
            *(_of_groups(side, key.shape) for side in (of_key, of_value)),
            of_front_key.sum(0),
            of_front_value.sum(0),
            None,
            None,
            None,
        )


def _of_text(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float, *, causal: bool
) -> tuple[Tensor, Tensor]:
    """What queries `[B, heads, Q, dim]` get of their rows' text, and the log-sum-exp of their
    scores `[B, heads, Q]`."""
    size, added = query.shape, _added(mask, query)
    if size[2] == 1:  # the heads of a head of keys as one sequence: no copy for each
        query, causal = query.reshape(size[0], key.shape[1], -1, size[3]), False
        added = None if added is None else added.expand(-1, -1, query.shape[2], -1)
    else:
        key, value = _for_heads(size[1], key, value)
    output, sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, is_causal=causal, attn_mask=added, scale=scale
    )
    return output.reshape(size), sums.reshape(size[:3])


def _of_front(query: Tensor, key: Tensor, value: Tensor, *, scale: float) -> tuple[Tensor, Tensor]:
    """The same of virtual tokens `[kv_heads, P, dim]`."""
    together = _Together(query, key.shape[0])
    output, sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        together.fold(query), *together.of_rows(key, value), scale=scale
    )
    return together.unfold(output), together.unfold(sums[..., None])[..., 0]


def _both(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """What queries get of two parts together, and the log-sum-exp of all scores."""
    sums = torch.logaddexp(one[1], other[1])
    share = (one[1] - sums).exp()[..., None]
    output = torch.lerp(other[0].to(share.dtype), one[0].to(share.dtype), share)
    return output.to(one[0].dtype), sums


class _Together:
    """Queries that attend to the same keys, as sequences: of a head of keys those of as many rows
    as are a divisor of all and have no more than `MOST`; or those of one head of a row, where its
    heads have more. In half precision the kernel adds up the gradients of a sequence in that
    precision, so a sequence is not as long as could be.
    """

    def __init__(self, query: Tensor, kv_heads: int) -> None:
        rows, heads, self.queries, _ = query.shape
        groups = heads // kv_heads
        most = MOST // (groups * self.queries)
        if most:
            each = next(count for count in range(min(most, rows), 0, -1) if rows % count == 0)
            self.size, self.sequences = (rows // each, each, kv_heads, groups), rows // each
        else:
            self.size, self.sequences = (rows, kv_heads, groups, 1), rows * groups
        self.whole, self.kv_heads = (rows, heads), kv_heads

    def of_rows(self, *sides: Tensor) -> list[Tensor]:
        """Keys or values `[kv_heads, P, dim]` for each sequence, without a copy."""
        return [side.expand(self.sequences, *side.shape) for side in sides]

    def fold(self, side: Tensor) -> Tensor:
        """`[B, heads, Q, …]` as `[sequences, kv_heads, queries of one, …]`."""
        inner = side.reshape(*self.size, self.queries, side.shape[-1]).transpose(1, 2)
        return inner.reshape(self.sequences, self.kv_heads, -1, side.shape[-1])

    def unfold(self, side: Tensor) -> Tensor:
        """`fold` undone."""
        first, second, third, fourth = self.size
        inner = side.reshape(first, third, second, fourth, self.queries, side.shape[-1])
        return inner.transpose(1, 2).reshape(*self.whole, self.queries, side.shape[-1])


def _for_heads(heads: int, *sides: Tensor) -> list[Tensor]:
    """Keys or values for every head of queries."""
    return [
        side if side.shape[1] == heads else side.repeat_interleave(heads // side.shape[1], 1)
        for side in sides
    ]


def _of_groups(gradient: Tensor, size: torch.Size) -> Tensor:
    """The gradient of keys or values from those for every head of queries."""
    rows, heads, keys, width = size
    if gradient.shape == size:
        return gradient
    return gradient.view(rows, heads, -1, keys, width).sum(2)


def _added(mask: Tensor | None, query: Tensor) -> Tensor | None:
    """A mask as what is added to the scores, finite: a query that sees nothing of the text has a
    sum that counts for nothing beside the virtual tokens'."""
    if mask is None:
        return None
    wide = mask.expand(-1, -1, query.shape[2], -1)
    if wide.dtype != torch.bool:
        return wide.to(query.dtype).clamp(min=torch.finfo(query.dtype).min)
    hidden = torch.zeros(wide.shape, dtype=query.dtype, device=query.device)
    return hidden.masked_fill_(~wide, torch.finfo(query.dtype).min)


@cache
def _works() -> bool:
    """Whether this torch has the kernels, and they give what its attention gives: tried once, in a
    thread of its own, which has nothing that this one's surroundings set up."""
    if not hasattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu_backward"):
        return False
    with ThreadPoolExecutor(1) as pool:
        try:
            return pool.submit(_are_alike).result()
        except (RuntimeError, TypeError):
            return False


def _are_alike() -> bool:
    dice = torch.Generator().manual_seed(0)

    def some(*size: int) -> Tensor:
        return torch.randn(*size, dtype=torch.float64, generator=dice).requires_grad_()

    query, key, value, front_key, front_value = given = (
        some(2, 4, 3, 8),
        *(some(2, 2, 3, 8) for _ in range(2)),
        *(some(2, 5, 8) for _ in range(2)),
    )
    seen = torch.ones(2, 1, 3, 3, dtype=torch.bool).tril()
    seen[1, :, :, 0] = False
    whole_key, whole_value = (
        torch.cat([front.expand(2, -1, -1, -1), own], 2).repeat_interleave(2, 1)
        for front, own in ((front_key, key), (front_value, value))
    )
    expected = torch.nn.functional.scaled_dot_product_attention(
        query, whole_key, whole_value, torch.nn.functional.pad(seen, (5, 0), value=True)
    )
    own = _apply(given, seen, 8**-0.5, causal=False)
    return all(
        torch.allclose(one, other, rtol=1e-9)
        for one, other in zip(
            (own, *torch.autograd.grad(own.pow(2).sum(), given)),
            (expected, *torch.autograd.grad(expected.pow(2).sum(), given)),
            strict=True,
        )
    )
