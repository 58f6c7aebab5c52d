"""The workers' side: which numbers go where, for every share of the heads."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from safetensors.torch import save

from exported import SHAPE, tensors
from foreword_vllm.loading import Loading, Share
from foreword_vllm.loads import Load, Step

BLOCKS, SIZE = 4, 16


class Layer:
    """As much of vLLM's attention layer as is touched, with a cache of slots."""

    def __init__(self, heads: int) -> None:
        self.num_kv_heads = heads
        self.kv_cache = torch.zeros(2, BLOCKS * SIZE, heads, SHAPE.head_dim)
        self.impl = self
        self.calls = 0

    def do_kv_cache_update(
        self, layer: Any, key: torch.Tensor, value: torch.Tensor, cache: Any, slots: torch.Tensor
    ) -> None:
        """Write by slots, as vLLM's own does."""
        assert layer is self
        assert key.is_contiguous()
        assert value.is_contiguous()
        cache[0][slots], cache[1][slots] = key.to(cache.dtype), value.to(cache.dtype)
        self.calls += 1


def filled(length: int, seed: int) -> tuple[str, bytes, dict[str, torch.Tensor]]:
    held = tensors(length, seed)
    return f"hash{seed}", save(held), held


@pytest.mark.parametrize(("rank", "ranks", "heads"), [(0, 1, 4), (0, 2, 2), (1, 2, 2), (5, 8, 1)])
def test_each_worker_writes_its_heads(rank, ranks, heads) -> None:
    first, second = filled(5, 1), filled(20, 2)
    layers = {number: Layer(heads) for number in range(SHAPE.layers)}
    loading = Loading(torch.float32, lambda: Share(rank, ranks))
    slots = [*range(40, 45)], [*range(3, 7)]
    loads = [Load(first[0], 0, slots[0]), Load(second[0], 16, slots[1])]
    loading.run(Step(loads, {name: content for name, content, _ in (first, second)}), layers)
    start = rank * SHAPE.kv_heads // ranks
    mine = slice(start, start + heads)
    for number, layer in layers.items():
        assert layer.calls == 1
        for side, name in enumerate(("decoder.keys", "decoder.values")):
            assert torch.equal(layer.kv_cache[side][slots[0]], first[2][name][number][:, mine])
            assert torch.equal(layer.kv_cache[side][slots[1]], second[2][name][number][16:, mine])
        assert layer.kv_cache.abs().sum(dim=(0, 2, 3)).count_nonzero() == 9


def test_every_head_is_some_workers() -> None:
    for ranks, own in ((1, 4), (2, 2), (4, 1), (8, 1), (16, 1)):
        shares = [range(4)[Share(rank, ranks).of(4, own)] for rank in range(ranks)]
        assert {head for share in shares for head in share} == {0, 1, 2, 3}
        assert all(len(share) == own for share in shares)


def test_layers_of_a_pipelines_stage_are_those_of_their_numbers() -> None:
    name, content, held = filled(5, 1)
    layers = {1: Layer(4)}
    Loading(torch.float32, lambda: Share(0, 1)).run(
        Step([Load(name, 0, list(range(5)))], {name: content}), layers
    )
    assert torch.equal(layers[1].kv_cache[0][:5], held["decoder.keys"][1])


def test_prompts_stay_until_they_are_let_go() -> None:
    name, content, _ = filled(5, 1)
    layers = {number: Layer(4) for number in range(2)}
    loading = Loading(torch.float64, lambda: Share(0, 1))
    for new in ({name: content}, {}, {}):
        loading.run(Step([Load(name, 0, list(range(5)))], new), layers)
    assert layers[0].calls == 3
    loading.run(Step(gone=[name]), layers)
    with pytest.raises(KeyError):
        loading.run(Step([Load(name, 0, list(range(5)))]), layers)
    loading.run(Step([Load(name, 0, list(range(5)))], {name: content}), layers)


def test_a_step_without_loads_touches_nothing() -> None:
    layers = {0: Layer(4)}
    Loading(torch.float32, lambda: Share(0, 1)).run(Step(failed=[3]), layers)
    assert layers[0].calls == 0
