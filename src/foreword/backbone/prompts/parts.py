"""torch's attention kernel on the CPU, which gives the log-sum-exp of its scores: what queries get
of their rows' text and of virtual tokens that rows share, apart, and of both together.

For the backward pass each part gets the log-sum-exp and the output of the whole, from which the
kernel computes its probabilities (Dao et al. 2022, "FlashAttention", section 3.1 and appendix B).
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

MOST = 512
"""So many queries of a sequence: the kernel is slow with a few dozen."""


def in_two_parts(
    sides: Sequence[Tensor], mask: Tensor | None, scale: float, *, causal: bool
) -> Tensor:
    """What queries get of text and virtual tokens, with gradients: `[B, heads, Q, dim]`.

    Args:
        sides: queries `[B, heads, Q, dim]`, keys and values `[B, kv_heads, K, dim]`, and those of
            virtual tokens `[kv_heads, P, dim]`, of one type.
        mask: `[B or 1, heads or 1, Q or 1, K]`, bool or additive, of the text; or none.
        scale: of the scores.
        causal: whether a query sees what stands before it, of as many keys as queries.
    """
    output: Tensor = _Merged.apply(*sides, mask, scale, causal)  # type: ignore[no-untyped-call]
    return output


def even(side: Tensor) -> Tensor:
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
        own = of_text(query, key, value, mask, scale, causal=causal)
        output, whole_sum = both(own, of_front(query, front_key, front_value, scale=scale))
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


def of_text(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float, *, causal: bool
) -> tuple[Tensor, Tensor]:
    """What queries `[B, heads, Q, dim]` get of their rows' text, and the log-sum-exp of their
    scores `[B, heads, Q]`."""
    size, added = query.shape, _added(mask, query)
    alike = added is None or added.shape[1] == 1
    if size[2] == 1 and alike:  # the heads of a head of keys as one sequence: no copy for each
        query, causal = query.reshape(size[0], key.shape[1], -1, size[3]), False
        added = None if added is None else added.expand(-1, -1, query.shape[2], -1)
    else:
        key, value = _for_heads(size[1], key, value)
    output, sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, is_causal=causal, attn_mask=added, scale=scale
    )
    return output.reshape(size), sums.reshape(size[:3])


def of_front(query: Tensor, key: Tensor, value: Tensor, *, scale: float) -> tuple[Tensor, Tensor]:
    """The same of virtual tokens `[kv_heads, P, dim]`."""
    together = _Together(query, key.shape[0])
    output, sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        together.fold(query), *together.of_rows(key, value), scale=scale
    )
    return together.unfold(output), together.unfold(sums[..., None])[..., 0]


def both(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
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
def works() -> bool:
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
    own = in_two_parts(given, seen, 8**-0.5, causal=False)
    return all(
        torch.allclose(one, other, rtol=1e-9)
        for one, other in zip(
            (own, *torch.autograd.grad(own.pow(2).sum(), given)),
            (expected, *torch.autograd.grad(expected.pow(2).sum(), given)),
            strict=True,
        )
    )
