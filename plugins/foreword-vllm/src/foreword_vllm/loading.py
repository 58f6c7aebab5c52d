"""The workers' side: writes prompts' keys and values into vLLM's cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from foreword_vllm.loads import Load, Step
from foreword_vllm.tensors import unpacked


@dataclass(frozen=True)
class Share:
    """Which heads are a worker's under tensor parallelism.

    Attributes:
        rank: of the worker.
        ranks: how many workers share a layer.
    """

    rank: int
    ranks: int

    def of(self, heads: int, own: int) -> slice:
        """A worker's share of all heads; where workers are more than heads, several have one."""
        first = self.rank * heads // self.ranks
        return slice(first, first + own)


class Loading:
    """Prompts that a worker holds, and how they are written.

    Args:
        dtype: what keys and values are cast to.
        share: tells the worker's share, once it is known.
    """

    def __init__(self, dtype: torch.dtype, share: Callable[[], Share]) -> None:
        self._dtype, self._share = dtype, share
        self._files: dict[str, bytes] = {}
        self._held: dict[str, tuple[Tensor, Tensor]] = {}

    def run(self, step: Step, layers: Mapping[int, Any]) -> None:
        """Write what a step needs.

        Args:
            step: what the scheduler said.
            layers: the worker's attention layers of vLLM by their numbers in the whole model. Each
                has `num_kv_heads`, `kv_cache` and `impl.do_kv_cache_update`.
        """
        for sha256 in step.gone:
            self._held.pop(sha256, None)
            self._files.pop(sha256, None)
        self._files |= step.new
        if not step.loads or not layers:
            return
        first = next(iter(layers.values()))
        device = first.kv_cache.device
        keys, values = self._rows(step.loads, first.num_kv_heads, device)
        slots = torch.tensor(
            [slot for load in step.loads for slot in load.slots], dtype=torch.int64
        ).to(device)
        for number, layer in layers.items():
            layer.impl.do_kv_cache_update(
                layer, keys[number], values[number], layer.kv_cache, slots
            )

    def _rows(self, loads: list[Load], heads: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Keys and values of all loads, one after the other: `[layers, rows, heads, head_dim]`."""
        parts = [self._prompt(load.sha256, heads, device) for load in loads]
        keys, values = (
            torch.cat(
                [part[side][:, load.first :] for part, load in zip(parts, loads, strict=True)], 1
            )
            for side in (0, 1)
        )
        return keys, values

    def _prompt(self, sha256: str, heads: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """This worker's heads of a prompt, on its device; kept until the scheduler lets it go."""
        if sha256 not in self._held:
            whole = unpacked(self._files.pop(sha256))
            mine = self._share().of(whole[0].shape[2], heads)
            keys, values = (side[:, :, mine].to(device, self._dtype).contiguous() for side in whole)
            self._held[sha256] = keys, values
        return self._held[sha256]
