"""What surrounds an attention in two parts: checkpointing, autocast, `torch.func`."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from families import measures
from families.measures import backbone_of
from foreword.axes.injection import KeysValues
from foreword.backbone import Call, without
from foreword.backbone.prompts import merged, parts
from foreword.backbone.prompts.key_values import Front
from merging import however_few


@pytest.fixture(autouse=True)
def times() -> Iterator[list[str]]:
    """Attentions in two parts."""
    with however_few() as calls:
        yield calls


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_first_use_may_be_in_a_layer_that_is_recomputed(checkpointing: bool) -> None:
    """Whether the kernels are right is tried then, out of sight of what counts tensors."""
    backbone = backbone_of("gpt2")
    kv = KeysValues(backbone.geometry)
    layout = measures.laid_out(backbone, kv, "shift", (0, 1, 2), "right")
    rows = measures.random_rows(kv).requires_grad_()
    parts.works.cache_clear()
    with backbone.recomputing(checkpointing):
        logits = backbone.output(Call(layout, kv.prompt_of(rows)))[0]
    (gradient,) = torch.autograd.grad(logits.sum(), rows)
    assert parts.works()
    assert measures.largest(gradient) > 0


def test_functional_gradients_have_one_attention(times: list[str]) -> None:
    backbone = backbone_of("gpt2")
    kv = KeysValues(backbone.geometry)
    layout = measures.laid_out(backbone, kv, "shift", (0, 1, 2), "right")

    def loss(rows: Tensor) -> Tensor:
        return backbone.output(Call(layout, kv.prompt_of(rows)))[0].pow(3).mean()

    rows = measures.random_rows(kv).requires_grad_()
    times.clear()
    own = torch.func.grad(loss)(rows.detach())
    assert not times
    expected = torch.autograd.grad(loss(rows), rows)[0]
    assert times
    torch.testing.assert_close(own, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("family", ["llama", "bert"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_autocast(family: str, dtype: torch.dtype, times: list[str]) -> None:
    """Rotated queries are float32 beside values in bfloat16; float64 is left alone."""
    backbone = backbone_of(family, dtype)
    kv = KeysValues(backbone.geometry)
    layout = measures.laid_out(backbone, kv, measures.rules(backbone, kv)[0], (0, 1, 2), "right")
    prompt = kv.prompt_of(measures.random_rows(kv).to(dtype))
    times.clear()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        own = backbone.output(Call(layout, prompt))[0]
        assert times
        with without(backbone.model, ["copies"]):
            expected = backbone.output(Call(layout, prompt))[0]
    real = layout.attention_mask
    torch.testing.assert_close(own[real], expected[real], rtol=0.05, atol=0.05)


@pytest.mark.parametrize("queries", [1, 3])
@pytest.mark.parametrize("heads", [1, 4])
def test_a_mask_may_differ_by_head(heads: int, queries: int) -> None:
    """Beside grouped heads: what the kernel gives of text and virtual tokens is torch's own."""
    dice = torch.Generator().manual_seed(0)

    def some(*size: int) -> Tensor:
        return torch.randn(*size, dtype=torch.float64, generator=dice)

    query, key, value = some(2, 4, queries, 8), some(2, 2, 5, 8), some(2, 2, 5, 8)
    front = Front(some(1, 2, 6, 8), some(1, 2, 6, 8))
    seen = torch.rand(2, heads, queries, 5, generator=dice) < 0.5
    own = merged.written(query, key, value, seen, None, [(None, front)])
    whole = [side.repeat_interleave(2, 1) for side in front.before(key, value)]
    every = torch.nn.functional.pad(seen, (6, 0), value=True)
    expected = torch.nn.functional.scaled_dot_product_attention(query, *whole, every)
    torch.testing.assert_close(own, expected.transpose(1, 2), rtol=1e-9, atol=1e-12)
