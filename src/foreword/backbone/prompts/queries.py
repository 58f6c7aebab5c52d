"""A layer's attention for the queries of some positions alone, over keys and values of all.

`foreword.backbone.modules.last_layer` enters a layer twice for it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask
from transformers import Cache


class Kept(Exception):
    """Keys and values are kept; the layer goes no further."""


class Entered:
    """A last layer that is entered twice.

    Attributes:
        columns: `[B, R]`, the positions of each row that are read; some stand twice where a row
            has fewer than others.
        tokens: T.
        kept: keys, values, mask and position bias of all positions, once they are there.
        done: whether an attention had them.
    """

    def __init__(self, columns: Tensor, tokens: int) -> None:
        self.columns, self.tokens = columns, tokens
        self.kept: tuple[Tensor, Tensor, Tensor | None, Tensor | None] | None = None
        self.done = False

    def attention(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Any,
        given: Mapping[str, Any],
    ) -> tuple[Tensor, Tensor, Any, dict[str, Any]]:
        """What an attention gets: keys, values, mask and position bias are those that were kept.

        Raises:
            Kept: these are the keys and values of all positions, which are kept now.
        """
        bias = given.get("position_bias")
        if self.done or isinstance(mask, BlockMask):
            return key, value, mask, dict(given)
        if self.kept is None:
            if query.shape[2] != self.tokens:
                self.done = True
                return key, value, mask, dict(given)
            self.kept = key, value, mask, bias
            raise Kept
        self.done = True
        key, value, mask, bias = self.kept
        if mask is None and self.tokens > 1 and _is_causal(module, given):
            last = self.columns[:, None, :, None] + key.shape[2] - self.tokens
            mask = torch.arange(key.shape[2], device=key.device) <= last
        else:
            mask = self._of_queries(mask)
        own: dict[str, Any] = {"is_causal": False} if given.get("is_causal") else {}
        if bias is not None:
            own["position_bias"] = self._of_queries(bias)
        return key, value, mask, {**given, **own}

    def _of_queries(self, scores: Tensor | None) -> Tensor | None:
        """`[B or 1, heads or 1, T or 1, K]` at the positions that are read."""
        if scores is None or scores.shape[2] == 1:
            return scores
        at = self.columns.to(scores.device)[:, None, :, None]
        size = (len(at), scores.shape[1], -1, scores.shape[3])
        return scores.expand(size).gather(2, at.expand(size))

    def chosen(self, given: Any) -> Any:
        """An argument of the layer at the positions that are read; no cache, since keys and values
        of all positions are in it."""
        if isinstance(given, Tensor):
            return self._positions(given)
        if isinstance(given, Cache):
            return None
        if isinstance(given, dict):
            return {name: self.chosen(one) for name, one in given.items()}
        if isinstance(given, tuple | list):
            return type(given)(self.chosen(one) for one in given)
        return given

    def _positions(self, given: Tensor) -> Tensor:
        rows = len(self.columns)
        if given.ndim < 2 or given.shape[0] not in (1, rows) or given.shape[1] != self.tokens:
            return given
        at = self.columns.to(given.device)
        if given.shape[0] == rows:
            at = at + self.tokens * torch.arange(rows, device=at.device)[:, None]
        taken = given.flatten(0, 1).index_select(0, at.flatten())
        return taken.view(*at.shape, *given.shape[2:])


class _Here(threading.local):
    """The layer that this thread is in."""

    entered: Entered | None = None


_here = _Here()


@contextmanager
def entering(entered: Entered) -> Iterator[None]:
    """While it lasts, attentions that this thread computes are those of a layer that is entered
    twice."""
    before, _here.entered = _here.entered, entered
    try:
        yield
    finally:
        _here.entered = before


def attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, given: dict[str, Any]
) -> tuple[Tensor, Tensor, Any, dict[str, Any]]:
    """Keys, values, mask and other arguments of an attention that this thread computes."""
    if _here.entered is None:
        return key, value, mask, given
    return _here.entered.attention(module, query, key, value, mask, given)


def _is_causal(module: nn.Module, given: Mapping[str, Any]) -> bool:
    said = given.get("is_causal")
    return bool(getattr(module, "is_causal", True) if said is None else said)
